"""Other tensors in place of a module's: whatever reads the module sees them, and everything comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import parametrize as torch_parametrize

from multilevel.hypergrad.errors import ConfigError
from multilevel.problems.slots import Buffers, Slots

SEQUENCE = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 2, 3)


class Tied(nn.Module):
    """A layer whose weight is used twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class Lists(nn.Module):
    """Parameters in torch's containers."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(3, 3), torch.randn(3, 3)])
        self.scales = nn.ParameterDict({"a": nn.Parameter(torch.randn(3))})

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights[0] @ self.weights[1] * self.scales["a"]


class Normalized(nn.Module):
    """A weight that is computed from a parameter by ``torch.nn.utils.parametrize``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = parametrizations.weight_norm(nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 2),
    "nested": lambda: nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.LayerNorm(4))),
    "tied": Tied,
    "lists": Lists,
    "parametrized": Normalized,
    "GRU": lambda: nn.GRU(3, 2, num_layers=2, bidirectional=True),
    "LSTM": lambda: nn.LSTM(3, 2, proj_size=1),
    "attention": lambda: nn.TransformerEncoderLayer(3, 1, 4, dropout=0.0),
}


def outputs(module: nn.Module) -> Tensor:
    result = module(SEQUENCE)
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_module_computes_with_what_stands_in(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make()
    torch.manual_seed(1)
    other = make()  # the same module with other parameters, to compare with
    own, others = tuple(module.parameters()), tuple(other.parameters())
    slots = Slots("p", module, own)
    before, expected = outputs(module), outputs(other)
    stand_in = tuple(t.detach().clone().requires_grad_() for t in others)
    slots.put(stand_in)
    got = outputs(module)
    slots.put(own)
    assert torch.equal(got, expected)
    assert not torch.equal(got, before)
    assert all(g is not None for g in torch.autograd.grad(got.square().sum(), stand_in))  # and the graph leads there
    assert torch.equal(outputs(module), before)
    assert [id(p) for p in module.parameters()] == [id(p) for p in own]
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())


def test_a_substitute_is_read_where_the_module_is_not_called() -> None:
    module = nn.Linear(3, 2)
    slots = Slots("p", module, tuple(module.parameters()))
    stand_in = torch.zeros(2, 3)
    slots.put((stand_in, module.bias))
    assert module.weight is stand_in
    assert next(module.parameters()) is stand_in
    assert module.state_dict()["weight"].sum() == 0


def test_a_substitute_carries_the_marks_of_what_it_stands_in_for() -> None:
    module = nn.Linear(3, 2)
    slots = Slots("p", module, tuple(module.parameters()))
    module.bias.no_decay = True
    slots.put((torch.zeros(2, 3), torch.zeros(2)))
    assert [hasattr(p, "no_decay") for p in module.parameters()] == [False, True]


def test_only_the_parameters_asked_for_are_replaced() -> None:
    module = nn.Linear(3, 2)
    weight = module.weight
    Slots("p", module, (module.bias,)).put((torch.zeros(2),))
    assert module.weight is weight
    assert torch.equal(module.bias, torch.zeros(2))


def test_a_parameter_from_elsewhere_is_refused() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=r"problem 'p': trainable_parameters\(\) returns a tensor of shape \(5,\)"):
        Slots("p", module, (module.weight, nn.Parameter(torch.ones(5))))


def test_parametrizations_stay_registered() -> None:
    module = Normalized()
    own = tuple(module.parameters())
    slots = Slots("p", module, own)
    slots.put(tuple(torch.zeros_like(p) for p in own))
    slots.put(own)
    assert torch_parametrize.is_parametrized(module.layer, "weight")


class Cache(nn.Module):
    """A buffer that is absent until the first use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", None)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach().mean(0) if self.seen is None else self.seen + 1
        return x


def buffers_of(module: nn.Module) -> list[Any]:
    return [b if b is None else b.clone() for part in module.modules() for b in part._buffers.values()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_buffers_come_back_as_the_same_objects(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None), Cache()).to(dtype)
    x = torch.randn(5, 3, dtype=dtype)
    buffers = Buffers([module, module])  # two problems may share a module
    objects, values = list(module.buffers()), buffers_of(module)
    originals = buffers.detach()
    module(x)
    module(x)
    assert not torch.equal(module[0].running_mean, originals[0])
    buffers.restore(originals)
    assert [id(b) for b in module.buffers()] == [id(b) for b in objects]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(buffers_of(module), values, strict=True))
