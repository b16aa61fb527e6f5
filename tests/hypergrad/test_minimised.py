"""Weight decay of the optimizer, and a loss that is maximised: the derivative of where training comes to rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import ASGD, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from multilevel import CG, GMRES, MINRES, Config, ConfigError, Engine, EngineConfig, Neumann, NumericsWarning, Nystrom
from multilevel.hypergrad.minimised import coupled_decay, has_decoupled_decay
from multilevel.hypergrad.updates import group_indices

from ..conftest import CONVERGED, EXACT, FINITE_DIFFERENCE
from ..givens import Given, Vector

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
TARGET = torch.tensor([0.3, -0.2], dtype=torch.float64)
START = (0.4, -0.7)
DECAY = 0.5
SOLVERS = [
    "exact",
    CG(iterations=2),
    CG(iterations=2, curvature="ggn"),
    MINRES(),
    GMRES(),
    Neumann(iterations=200, alpha=0.3),
    "unroll",
]


def truth(decay: Any) -> Tensor:
    """Of the solution in closed form: (A + diag(w)) theta = sin(phi)."""
    phi = torch.tensor(START, requires_grad=True)
    solution = torch.linalg.solve(A + torch.diag(torch.as_tensor(decay).expand(2)), phi.sin())
    return torch.autograd.grad((solution - TARGET).square().sum(), phi)[0]


def built(method: Any, optimizer: Any, sign: float = 1.0, low: Any = None, steps: int = 400) -> Engine:
    def loss(problem: Given, batch: Any) -> Any:
        theta = problem.module()
        value = sign * (theta @ A @ theta / 2 - theta @ problem.upper.module().sin())
        return {"loss": value, "outputs": theta} if getattr(method, "curvature", "") == "ggn" else value

    low = Vector(0.0, 0.0) if low is None else low
    config = Config(type=method, unroll_steps=steps)
    lower = Given("lower", loss, low, optimizer=optimizer(low), config=config)
    upper = Given("upper", lambda p, b: (p.lower.module() - TARGET).square().sum(), Vector(*START), lr=0.0)
    return Engine([upper, lower], edges=[("upper", "lower")], config=EngineConfig(train_iters=steps))


def converged(engine: Engine) -> Tensor:
    for _ in range(engine.config.train_iters - 1):
        engine.step()
    return engine.hypergradient("upper")[0]


def descent(weight_decay: float = DECAY, **options: Any) -> Any:
    return lambda low: SGD(low.parameters(), lr=0.1, weight_decay=weight_decay, **options)


@pytest.mark.parametrize("method", SOLVERS, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
def test_decay_and_direction_of_the_optimizer_are_part_of_what_is_differentiated(method: Any, maximize: bool) -> None:
    run = built(method, descent(maximize=maximize), sign=-1.0 if maximize else 1.0)
    torch.testing.assert_close(converged(run), truth(DECAY), rtol=CONVERGED, atol=CONVERGED)


@pytest.mark.parametrize("maximize", [False, True])
def test_the_decay_is_beside_the_damping_of_nystrom(maximize: bool) -> None:
    damping, phi = 0.1, torch.tensor(START)
    run = built(Nystrom(rank=2, damping=damping), descent(maximize=maximize), sign=-1.0 if maximize else 1.0)
    curvature = A + DECAY * torch.eye(2)
    cotangent = 2 * (torch.linalg.solve(curvature, phi.sin()) - TARGET)
    expected = phi.cos() * torch.linalg.solve(curvature + damping * torch.eye(2), cotangent)
    torch.testing.assert_close(converged(run), expected, rtol=CONVERGED, atol=CONVERGED)


@pytest.mark.parametrize("method", ["identity", "darts", "sama"])
def test_a_maximised_loss_is_the_negative_one_minimised(method: str) -> None:
    ends = []
    for maximize in (False, True):
        ends.append(converged(built(method, descent(maximize=maximize), sign=-1.0 if maximize else 1.0)))
    torch.testing.assert_close(ends[0], ends[1], rtol=EXACT, atol=EXACT)


def test_the_audit_measures_how_far_from_rest_the_decayed_problem_is() -> None:
    run = built("exact", descent())
    converged(run)
    (level,) = run.audit("upper", methods=[]).levels
    assert level.gradient_norm < CONVERGED
    assert level.smallest_curvature == pytest.approx(float(torch.linalg.eigvalsh(A)[0]) + DECAY, rel=1e-6)


@pytest.mark.parametrize("kind", [SGD, ASGD, Adam, RMSprop, Adagrad])
def test_a_decay_that_is_a_part_of_the_gradient(kind: Any) -> None:
    one, other = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer: Optimizer = kind([{"params": [one], "weight_decay": 0.25}, {"params": [other]}], lr=0.1)
    assert list(coupled_decay(optimizer, group_indices(optimizer, (other, one)))) == [0.0, 0.25]
    assert not has_decoupled_decay(optimizer)
    assert not coupled_decay(kind([one], lr=0.1), (0,))


def test_a_decoupled_decay_is_said() -> None:
    with pytest.warns(NumericsWarning, match="problem 'lower': the weight decay of AdamW moves its solution"):
        built("cg", lambda low: AdamW(low.parameters(), lr=0.1))
    built("cg", lambda low: AdamW(low.parameters(), lr=0.1, weight_decay=0.0))
    built("darts", lambda low: AdamW(low.parameters(), lr=0.1))


def test_both_directions_in_one_problem_are_refused() -> None:
    def both(low: Vector) -> Optimizer:
        low.other = torch.nn.Parameter(torch.zeros(1))
        return SGD([{"params": [low.value], "maximize": True}, {"params": [low.other]}], lr=0.1)

    with pytest.raises(ConfigError, match="problem 'lower': some groups of its optimizer have maximize=True"):
        built("cg", both)
    for follows in ("unroll", "sama"):
        built(follows, both)


def test_one_group_decays_and_the_other_does_not() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.y = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

        def forward(self) -> Tensor:
            return torch.stack([self.x, self.y])

    groups = lambda low: SGD([{"params": [low.y]}, {"params": [low.x], "weight_decay": DECAY}], lr=0.1)  # noqa: E731
    run = built("exact", groups, low=Two())
    torch.testing.assert_close(converged(run), truth([DECAY, 0.0]), rtol=CONVERGED, atol=CONVERGED)


def three(methods: tuple[Any, Any], maximize: bool) -> Engine:
    """A chain of scalars: the bottom follows the middle, the middle the bottom and the top; both decay."""
    sign = -1.0 if maximize else 1.0
    losses = [
        lambda p, b: (p.mid.module() + p.low.module() - 1).square().sum(),
        lambda p, b: (
            sign * ((p.module() - p.top.module().sin()).square().sum() + (p.low.module() ** 2 * p.module()).sum())
        ),
        lambda p, b: sign * ((p.module() - p.mid.module() ** 2).square().sum() + p.module().pow(4).sum() / 4),
    ]
    problems = [Given("top", losses[0], Vector(0.6), lr=0.0)]
    for name, loss, method, steps in zip(("mid", "low"), losses[1:], methods, (60, 60), strict=True):
        module = Vector(0.3)
        optimizer = SGD(module.parameters(), lr=0.1, weight_decay=DECAY, maximize=maximize)
        problems.append(Given(name, loss, module, optimizer=optimizer, config=Config(type=method, unroll_steps=steps)))
    edges = {"u2l": {"top": ["mid"], "mid": ["low"]}, "l2u": {"mid": ["top"], "low": ["mid", "top"]}}
    return Engine(problems, dependencies=edges, config=EngineConfig(train_iters=60 * 60))


def solved(phi: float) -> float:
    """The loss of the top where both below are at rest, by Newton's method on nested stationarity conditions."""
    top = torch.tensor(phi)

    def low_of(mid: Tensor) -> Tensor:
        low = mid.detach().clone()
        for _ in range(50):  # 2 (z - y^2) + z^3 + w z = 0
            low = low - (2 * (low - mid.detach() ** 2) + low**3 + DECAY * low) / (2 + 3 * low**2 + DECAY)
        slope = 4 * mid.detach() / (2 + 3 * low**2 + DECAY)
        return low + slope * (mid - mid.detach())

    def total(mid: float) -> float:
        y = torch.tensor(mid, requires_grad=True)
        value = (y - top.sin()).square() + low_of(y) ** 2 * y + DECAY * y.square() / 2
        return float(torch.autograd.grad(value, y)[0])

    below, above = -2.0, 2.0
    for _ in range(80):
        middle = (below + above) / 2
        below, above = (middle, above) if total(middle) < 0 else (below, middle)
    mid = torch.tensor(middle)
    return float((mid + low_of(mid) - 1).square())


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    "methods", [("exact", "exact"), (CG(iterations=3), MINRES()), (MINRES(), Neumann(60, 0.1))], ids=str
)
def test_both_lower_levels_decay(methods: tuple[Any, Any], maximize: bool) -> None:
    """Beside a central difference of the hierarchy solved again."""
    run = three(methods, maximize)
    for _ in range(60 * 60 - 1):
        run.step()
    step = 1e-5
    expected = (solved(0.6 + step) - solved(0.6 - step)) / (2 * step)
    assert float(run.hypergradient("top")[0]) == pytest.approx(expected, rel=FINITE_DIFFERENCE)
