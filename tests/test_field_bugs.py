"""Bugs of betty (found by running it), each as a law that holds here; named after the list that they are in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, Config, Darts, Engine, EngineConfig, Method, Sama, Unroll

from .conftest import FINITE_DIFFERENCE
from .followers import METHODS, NEVER, close, every_method, follow, linear, reach_one, ready, weighted
from .givens import Given, Vector, assert_same, flat_state, pair


@pytest.mark.parametrize("alpha", [0.1, 1.0, 2.0])
def test_b1_the_scale_of_cg_does_not_change_its_answer(alpha: float) -> None:
    engine = pair(weighted(1.0, 4.0), linear, method=CG(2, alpha=alpha), modules=[Vector(0.0, 0.0), Vector(0.0, 0.0)])
    close(engine.hypergradient("upper")[0], [1.0, 0.25])


@pytest.mark.parametrize(
    ("method", "response", "expected"),
    [*((m, "total", 1.7) for m in METHODS), *((m, "direct", 0.0) for m in METHODS if m != "unroll")],
)
def test_b2_b6_a_middle_problem_that_acts_through_its_lower(method: str, response: str, expected: float) -> None:
    """low = (z - y)^2 / 2, mid = y^2 / 2 + x z, top = (y - 1)^2 / 2: y* = -x, by way of low alone."""
    type_ = {"name": "nystrom", "damping": 1e-9} if method == "nystrom" else method
    losses: dict[str, Any] = {
        "low": lambda p, b: (p.module() - p.mid()).square().sum() / 2,
        "mid": lambda p, b: (p.module().square() / 2 + p.top() * p.low()).sum(),
        "top": lambda p, b: (p.mid() - 1).square().sum() / 2,
    }
    at, steps = {"low": -0.7, "mid": -0.7, "top": 0.7}, {"mid": NEVER}
    problems = [
        Given(n, loss, Vector(at[n]), lr=1.0, config=Config(type=type_, unroll_steps=steps.get(n, 1)))
        for n, loss in losses.items()
    ]
    engine = Engine(problems, edges=[("top", "mid"), ("mid", "low")], config=EngineConfig(response=response))
    if method == "unroll":
        engine.step()
    close(engine.hypergradient("top")[0], [expected], FINITE_DIFFERENCE)


@pytest.mark.parametrize("method", [Sama(), Unroll()], ids=lambda m: m.name)
def test_b12_parameter_groups_keep_their_learning_rates(method: Method) -> None:
    module = nn.Module()
    module.first, module.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [module.first], "lr": 0.5}, {"params": [module.second], "lr": 1e-3}])
    given = Given(
        "lower",
        lambda p, b: ((p.module.first - p.upper()[0]) ** 2 + (p.module.second - p.upper()[1]) ** 2).sum() / 2,
        module,
        optimizer=optimizer,
        config=Config(type=method, unroll_steps=NEVER),
    )
    upper = Given("upper", lambda p, b: (p.lower.module.first + p.lower.module.second).sum(), Vector(1.0, 1.0))
    engine = Engine([upper, given], edges=[("upper", "lower")])
    engine.step()
    close(engine.hypergradient("upper")[0], [0.5, 1e-3], FINITE_DIFFERENCE)


@every_method
def test_b14_the_lower_may_return_a_dict(method: str) -> None:
    def in_a_dict(problem: Given, batch: Any) -> dict[str, Any]:
        return {"loss": follow(problem, batch), "accuracy": 1.0}

    plain, wrapped = (
        ready(loss, reach_one, method, modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)]) for loss in (follow, in_a_dict)
    )
    assert_same(wrapped.hypergradient("upper"), plain.hypergradient("upper"))


@every_method
def test_b15_the_upper_loss_may_read_its_own_parameters_and_a_lower(method: str) -> None:
    """One backward pass gives both parts, and it may be asked for again: no retain_graph to be set."""

    def upper(problem: Given, batch: Any) -> Tensor:
        return reach_one(problem, batch) + 5 * problem.module().sum()

    parts: dict[str, Any] = {"modules": [Vector(2.0, 3.0), Vector(2.0, 3.0)]}
    engine = ready(follow, upper, method, **parts)
    (got,), (without,) = engine.hypergradient("upper"), ready(follow, reach_one, method, **parts).hypergradient("upper")
    close(got, without + 5)
    assert_same(engine.hypergradient("upper"), (got,))
    engine.step()


class Backbone(nn.Module):
    """A frozen weight, a trained one, one that nothing reads, and an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.full((2,), 3.0), requires_grad=False)
        self.value = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.unused = nn.Parameter(torch.ones(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self) -> Tensor:
        self.calls += 1
        return self.value * self.frozen / 3


@every_method
def test_b16_b21j_frozen_and_unused_parameters_and_integer_buffers(method: str) -> None:
    plain = ready(follow, reach_one, method, modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    engine = ready(follow, reach_one, method, modules=[Backbone(), Vector(2.0, 3.0)])
    calls = engine["lower"].module.calls.clone()
    got, before = engine.hypergradient("upper"), flat_state(engine)
    close(got[0], plain.hypergradient("upper")[0])
    assert_same(engine["lower"].module.calls, calls)
    engine.step()
    assert_same(flat_state(engine)["lower.frozen"], before["lower.frozen"])


def test_b19_cg_that_has_converged_stops() -> None:
    engine = pair(follow, reach_one, method=CG(5), modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    close(engine.hypergradient("upper")[0], [1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["darts", "sama"])
def test_b20_b21k_hundreds_of_differences_move_no_bit(method: str, dtype: torch.dtype) -> None:
    engine = pair(follow, reach_one, method=method, modules=[Vector(2.1, 3.3).to(dtype), Vector(2.7, 3.9).to(dtype)])
    before = flat_state(engine)
    for _ in range(200):
        engine.hypergradient("upper")
    assert_same(flat_state(engine), before)


def noisy_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 1))


def regression(problem: Given, batch: Any) -> Tensor:
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    return ((problem.module(x).squeeze(1) - x.sum(1)).square() * problem.upper().sigmoid().sum()).mean()


def validation(problem: Given, batch: Any) -> Tensor:
    return problem.lower(torch.linspace(-1, 1, 24).reshape(8, 3).flip(0)).square().mean()


@every_method
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")  # three steps do not lead to a minimum
def test_b21_running_statistics_count_real_steps(method: str) -> None:
    engine = pair(regression, validation, method=method, modules=[noisy_net(), Vector(0.3)])
    for _ in range(3):
        engine.step()
        engine.hypergradient("upper")
    # Three of the lower's own steps; the upper reads the net in training mode at each of its three.
    assert engine["lower"].module[1].num_batches_tracked == 6


def test_b21_both_sides_of_a_difference_see_the_same_dropout() -> None:
    """With other masks on the two sides their difference would be of the size of the loss over the radius."""
    got = []
    for alpha in (1e-2, 1e-6):
        torch.manual_seed(5)
        engine = pair(regression, validation, method=Darts(alpha), modules=[noisy_net(), Vector(0.3)])
        engine.step()
        got.append(engine.hypergradient("upper")[0])
    close(got[0], got[1], 1e-2)


def test_b21l_sama_has_the_scale_of_the_step_for_every_optimizer() -> None:
    """P is the derivative of the update: lr for SGD, and about lr / |g| for RMSprop's and Adam's first step."""
    lr = 1e-2
    for optimizer, P in ((torch.optim.SGD, lr), (torch.optim.Adagrad, None), (torch.optim.Adam, None)):
        low = Vector(2.0, 3.0)
        given = Given("lower", follow, low, optimizer=optimizer(low.parameters(), lr=lr), config=Config(type="sama"))
        engine = Engine([Given("upper", reach_one, Vector(1.5, 2.5)), given], edges=[("upper", "lower")])
        got = engine.hypergradient("upper")[0]
        if P is not None:
            close(got, [P * 1.0, P * 2.0], FINITE_DIFFERENCE)
        low.value.grad = torch.full((2,), 0.5)  # low - upper
        slope = _update_slope(optimizer, low.value.detach(), torch.full((2,), 0.5), lr)
        close(got, slope * torch.tensor([1.0, 2.0]), FINITE_DIFFERENCE)


def _update_slope(optimizer: Any, value: Tensor, gradient: Tensor, lr: float, size: float = 1e-5) -> Tensor:
    """- d theta' / d g of the optimizer's first step, by running it."""

    def stepped(g: Tensor) -> Tensor:
        parameter = nn.Parameter(value.clone())
        parameter.grad = g
        optimizer([parameter], lr=lr).step()
        return parameter.detach()

    return -(stepped(gradient + size) - stepped(gradient - size)) / (2 * size)
