"""Unroll goes back through the graphs of the training steps: the same numbers as by evaluating them again, for less."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from multilevel import Callback, Engine, EngineConfig, Problem, ProblemError, Unroll
from multilevel.hypergrad.tape import Graph

from ..conftest import EXACT
from ..givens import assert_same, bits
from .unrolled import STEPS, Lower, Upper, advance, assert_alike, batches, engine_of, net, trained, uses_graphs

pytestmark = pytest.mark.usefixtures("lazy")


class Recurrent(nn.Module):
    """Keeps its parameters in a list of its own besides."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 2, batch_first=True), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.unsqueeze(1))[0][:, -1])


PARTS: dict[str, dict[str, Any]] = {
    "descent": {},
    "weight decay": {"options": {"weight_decay": 0.1}},
    "momentum": {"options": {"momentum": 0.9}},
    "nesterov": {"options": {"momentum": 0.9, "nesterov": True, "foreach": True}},
    "maximize": {"options": {"maximize": True, "lr": 0.01}},
    "adam": {"optimizer": Adam, "options": {"lr": 0.05}},
    "adamw": {"optimizer": AdamW, "options": {"lr": 0.05}},
    "clipping": {"gradient_clipping": 0.1},
    "clipping by value": {"gradient_clipping": 0.05, "gradient_clipping_by": "value"},
    "accumulation": {"gradient_accumulation": 3},
    "accumulation and clipping": {"gradient_accumulation": 2, "optimizer": Adam, "gradient_clipping": 0.1},
    "truncation": {"method": {"truncation": 2}},
    "one step": {"unroll_steps": 1},
    "warm-up": {"warmup_steps": 3},
    "bf16": {"precision": "bf16"},
    "normalization and dropout": {"module": lambda: net(nn.BatchNorm1d(4), nn.Dropout(0.5))},
    "recurrent": {"module": Recurrent},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_a_run_goes_the_same_way_and_evaluates_nothing_again(parts: dict[str, Any]) -> None:
    steps = 26 if "gradient_accumulation" in parts else 2 * STEPS + 2
    assert uses_graphs(assert_alike(steps, **parts))


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_a_run_that_goes_on_from_within_a_loop_ends_at_the_same_bits(parts: dict[str, Any]) -> None:
    """A checkpoint has no graphs."""
    parts = dict(parts)
    method = Unroll(**parts.pop("method", {}))
    whole, first, second = (engine_of(method, **parts) for _ in range(3))
    torch.manual_seed(6)
    advance(whole, 3 * STEPS)
    torch.manual_seed(6)
    advance(first, STEPS + 2)
    second.load_state_dict(first.state_dict())
    advance(second, 2 * STEPS - 2)
    assert_same(bits(second), bits(whole))


def two_rates(parameters: Any, lr: float) -> Optimizer:
    first, *others = parameters
    return SGD([{"params": [first], "lr": lr / 2}, {"params": others}], lr=lr)


def test_parameter_groups_with_learning_rates_of_their_own() -> None:
    assert uses_graphs(assert_alike(optimizer=two_rates))  # type: ignore[arg-type]


# --- Where a graph is of no use, the step is evaluated again. ---


class Captures(Lower):
    """Regularized through references of its own."""

    def loss(self, batch: Any) -> Any:
        if not hasattr(self, "captured"):
            self.captured = self.level.parameters
        return super().loss(batch) + sum(p.square().sum() for p in self.captured) / 10


def test_parameters_that_are_read_past_the_module_are_trained_as_ever() -> None:
    """The derivative is refused: it would leave that part out."""
    ends = []
    for method in (Unroll(), Unroll(checkpoints="all"), "cg"):
        engine = engine_of(method, Captures, unroll_steps=10**6)  # type: ignore[arg-type]
        advance(engine, STEPS)
        ends.append([p.detach().clone() for p in engine["lower"].parameters])
        with pytest.raises(ProblemError, match=r"reads a parameter of 'lower' of shape .* by a reference of its own"):
            engine.hypergradient("upper")
    torch.testing.assert_close(ends[0], ends[2], rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(ends[1], ends[2], rtol=0, atol=0)


class Scales(Lower):
    """Has a buffer that its loss multiplies by, and that it writes to."""

    def loss(self, batch: Any) -> Any:
        x, y = batch
        self.module.factor.mul_(1.0)
        return (self.upper.module(x).sigmoid() * (self.module.factor * self.module[0](x) - y).square()).mean()


def scaled() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 1))
    module.register_buffer("factor", torch.tensor(2.0))
    return module


class EditsGradients(Lower):
    """Looks at its gradients; a callback may do anything."""

    def grad_callback(self) -> None:
        self.norm = sum(p.grad.square().sum() for p in self.parameters)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("key", ["adam", "accumulation"])
def test_where_numbers_are_not_read_it_goes_the_same_way(key: str) -> None:
    test_a_run_goes_the_same_way_and_evaluates_nothing_again(PARTS[key])


@pytest.mark.parametrize(
    "parts",
    [{"lower": EditsGradients}, {"engine": {"roll_back": True}}, {"lower": Scales, "module": scaled}],
    ids=["edits gradients", "roll back", "buffer"],
)
def test_what_a_graph_would_not_know_is_evaluated_again(parts: dict[str, Any]) -> None:
    assert not uses_graphs(assert_alike(**parts))


def test_hooks_on_parameters_and_optimizers_are_heard() -> None:
    runs = []
    for method in (Unroll(), "cg"):
        engine = engine_of(method, unroll_steps=10**6)  # type: ignore[arg-type]
        low = engine["lower"]
        low.parameters[0].register_hook(lambda g: 2 * g)

        def halve(optimizer: Optimizer, *_: Any) -> None:
            optimizer.param_groups[0]["params"][1].grad.mul_(0.5)

        low.optimizer.register_step_pre_hook(halve)
        advance(engine, 3)
        runs.append([p.detach().clone() for p in low.parameters])
    assert_same(runs[0], runs[1])


def test_an_upper_that_moved_is_put_back_for_the_next() -> None:
    """Two uppers follow the same loop, and the one goes before the other."""

    class Both(Lower):
        def loss(self, batch: Any) -> Any:
            return super().loss(batch) + (self.other.module.weight.exp() * self.module[0].weight.square()).sum() / 9

    def engine(checkpoints: Any) -> Engine:
        one = engine_of(Unroll(checkpoints=checkpoints), Both)
        above = nn.Linear(3, 4)
        other = Upper("other", module=above, optimizer=SGD(above.parameters(), lr=1.0), train_data_loader=batches(3, 5))
        problems = [other, *one.problems.values()]
        return Engine(problems, edges=[("upper", "lower"), ("other", "lower")], config=EngineConfig())

    runs = []
    for checkpoints in ("graphs", "all"):
        torch.manual_seed(5)
        runs.append(trained(engine(checkpoints), 2 * STEPS + 1))
    torch.testing.assert_close(runs[0], runs[1], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}], ids=["descent", "nesterov"])
def test_gradients_that_a_callback_edited_are_found_out(options: dict[str, Any]) -> None:
    class Halves(Callback):
        def on_gradients(self, engine: Engine, problem: Problem, gradients: Any) -> None:
            for gradient in gradients.total if problem.name == "lower" else ():
                gradient.mul_(0.5)

    engine = engine_of(Unroll(), options=options, unroll_steps=10**6)
    engine.callbacks.callbacks.append(Halves())
    engine.step()
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_graphs_are_gone_when_they_are_not_needed(optimizer: type[Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the upper stepped, and those before the truncation at once."""
    alive: list[weakref.ref[Graph]] = []
    init = Graph.__init__

    def noted(self: Graph, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        alive.append(weakref.ref(self))

    monkeypatch.setattr(Graph, "__init__", noted)
    engine = engine_of(Unroll(truncation=2), optimizer=optimizer)
    held = []
    for _ in range(2 * STEPS):
        engine.step()
        gc.collect()
        held.append(sum(bool(graph is not None and graph.gradients) for graph in (ref() for ref in alive)))
    assert held == [1, 2, 2, 0] * 2


def test_parameters_stay_where_they_are() -> None:
    engine = engine_of(Unroll())
    parameters = engine["lower"].parameters
    held, first = parameters[0].detach().numpy(), [p.const_data_ptr() for p in parameters]
    advance(engine, 2 * STEPS + 1)
    lazily = [torch._C._is_cow_tensor(p) for p in parameters]
    assert lazily == [False] + [True] * (len(parameters) - 1)
    assert [p.const_data_ptr() for p in parameters] == first
    assert held.tolist() == parameters[0].tolist()
