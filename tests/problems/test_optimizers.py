"""Every optimizer of torch, used as given: the same numbers as in a hand-written loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from multilevel import Config, Engine, EngineConfig

from ..givens import Given, Vector, assert_same

STEPS = 3
INPUTS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]], dtype=torch.float64)
INDICES = torch.tensor([0, 2, 2])
OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, Optimizer) and cls is not Optimizer
}
OPTIONS: dict[str, dict[str, Any]] = {"LBFGS": {"max_iter": 3}}


def module(name: str) -> nn.Module:
    torch.manual_seed(2)
    if name == "SparseAdam":
        return nn.Embedding(4, 2, sparse=True)
    return nn.Linear(3, 2, bias=name != "Muon")  # Muon takes matrices only


def outputs(net: nn.Module) -> Tensor:
    return net(INDICES if isinstance(net, nn.Embedding) else INPUTS.to(next(net.parameters()).dtype))


def optimizer_over(net: nn.Module, name: str) -> Optimizer:
    return OPTIMIZERS[name](net.parameters(), lr=0.05, **OPTIONS.get(name, {}))


def lower_loss(net: nn.Module, weight: Tensor) -> Tensor:
    return weight.exp().sum() * outputs(net).square().mean() + (outputs(net) - 1).square().mean()


def by_hand(net: nn.Module, optimizer: Optimizer, loss: Callable[[], Tensor], steps: int = STEPS) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)


def engine_of(low: nn.Module, up: nn.Module, low_optimizer: Optimizer, up_optimizer: Optimizer, **parts: Any) -> Engine:
    def lower(problem: Given, batch: Any) -> Tensor:
        return lower_loss(problem.module, problem.upper.module.weight)

    def upper(problem: Given, batch: Any) -> Tensor:
        return outputs(problem.lower.module).square().mean() + outputs(problem.module).square().mean() / 10

    problems = [
        Given("lower", lower, low, optimizer=low_optimizer, config=Config(type="darts"), **parts),
        Given("upper", upper, up, optimizer=up_optimizer),
    ]
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(train_iters=STEPS))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_lower_trains_as_by_hand(name: str) -> None:
    low, up = module(name), module("SGD")
    weight = up.weight.detach().clone()
    engine = engine_of(low, up, optimizer_over(low, name), torch.optim.SGD(up.parameters(), lr=0.0))
    engine.run()
    expected = module(name)
    by_hand(expected, optimizer_over(expected, name), lambda: lower_loss(expected, weight))
    assert not torch.equal(low.weight, module(name).weight)
    assert_same(low.state_dict(), expected.state_dict())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_upper_trains_as_by_hand(name: str) -> None:
    low, up = module("SGD"), module(name)
    still = low.weight.detach().clone()
    engine = engine_of(low, up, torch.optim.SGD(low.parameters(), lr=0.0), optimizer_over(up, name))
    radius = 0.01
    expected = module(name)
    optimizer = optimizer_over(expected, name)

    def closure() -> Tensor:
        """Direct gradient, and the central difference of DARTS by hand."""
        net = module("SGD")
        cotangent = torch.autograd.grad(outputs(net).square().mean(), list(net.parameters()))
        length = torch.stack([c.norm() for c in cotangent]).norm()
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, q, c in zip(net.parameters(), module("SGD").parameters(), cotangent, strict=True):
                    p.copy_(q + sign * radius / length * c)
            sides.append(torch.autograd.grad(lower_loss(net, expected.weight), expected.weight)[0])
        optimizer.zero_grad()
        loss = outputs(expected).square().mean() / 10
        loss.backward()
        expected.weight.grad -= (sides[0] - sides[1]) / (2 * radius / length)
        return loss + outputs(module("SGD")).square().mean()

    if name == "SparseAdam":  # the lower's loss reads the whole upper: its gradient is dense
        with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):
            engine.run()
        return
    engine.run()
    for _ in range(STEPS):
        optimizer.step(closure)
    assert torch.equal(low.weight, still)
    torch.testing.assert_close(up.state_dict(), expected.state_dict(), rtol=1e-8, atol=1e-9)


def test_sparse_gradients_at_both_levels() -> None:
    low, up = module("SparseAdam"), nn.Embedding(4, 2, sparse=True)
    start = up.weight.detach().clone()

    def lower(problem: Given, batch: Any) -> Tensor:
        return F.mse_loss(problem.module(INDICES), problem.upper(INDICES))

    problems = [
        Given("lower", lower, low, optimizer=optimizer_over(low, "SparseAdam"), config=Config(type="darts")),
        Given("upper", lambda p, b: p.lower(INDICES).square().mean(), up, optimizer=optimizer_over(up, "SparseAdam")),
    ]
    Engine(problems, edges=[("upper", "lower")], config=EngineConfig(train_iters=3, log_step=1)).run()
    moved = (up.weight - start).abs().sum(1) > 0
    assert moved.tolist() == [True, False, True, False]  # the rows that were read


@pytest.mark.parametrize("method", ["cg", "neumann", "exact", "gmres", "minres", "identity"])
def test_sparse_gradients_below_any_method(method: str) -> None:
    gradients = []
    for sparse in (True, False):
        torch.manual_seed(2)
        low, up = nn.Embedding(4, 2, sparse=sparse), Vector(0.5)
        problems = [
            Given(
                "lower",
                lambda p, b: (p.module(INDICES) - p.upper()).square().sum() / 9 + p.module.weight.square().sum() / 9,
                low,
                config=Config(type=method),
            ),
            Given("upper", lambda p, b: p.lower(INDICES).exp().sum(), up),
        ]
        gradients.append(Engine(problems, edges=[("upper", "lower")]).hypergradient("upper"))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_parameter_groups_and_earlier_state_are_kept() -> None:
    def prepared() -> tuple[nn.Module, Optimizer]:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        groups = [{"params": net[0].parameters(), "lr": 0.5, "weight_decay": 0.3}, {"params": net[1].parameters()}]
        optimizer = torch.optim.AdamW(groups, lr=0.001, amsgrad=True)
        by_hand(net, optimizer, lambda: outputs(net).square().mean(), steps=2)
        return net, optimizer

    net, optimizer = prepared()
    engine = Engine(
        [Given("p", lambda p, b: outputs(p.module).square().mean(), net, optimizer=optimizer)],
        config=EngineConfig(train_iters=2),
    )
    assert engine["p"].optimizer is optimizer
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.5, 0.3), (0.001, 0.01)]
    assert optimizer.state[net[0].weight]["step"] == 2
    engine.run()
    expected, other = prepared()
    by_hand(expected, other, lambda: outputs(expected).square().mean(), steps=2)
    assert_same(net.state_dict(), expected.state_dict())
    assert_same(optimizer.state_dict(), other.state_dict())
