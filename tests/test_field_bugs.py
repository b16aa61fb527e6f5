"""Bugs of other libraries (found by running them), each as a law that holds here; named after the list they are in.

B1 to B21 betty, B22 to B25 TorchOpt, B26 hypertorch, B27 to B36 BOAT, B37 to B40 higher, B42 jaxopt.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, Config, Darts, Engine, EngineConfig, Exact, Method, Neumann, Sama, Unroll, best_response
from multilevel.hypergrad.errors import NonFiniteError, NumericsWarning

from .conftest import CLOSED_FORM, CONVERGED, EXACT, FINITE_DIFFERENCE
from .givens import Given, Vector, assert_same, flat_state, pair

NEVER = 10**6
METHODS = ["darts", "identity", "neumann", "cg", "minres", "gmres", "nystrom", "sama", "exact", "unroll"]
SECOND_ORDER = [m for m in METHODS if m not in ("darts", "sama")]
every_method = pytest.mark.parametrize("method", METHODS)


def follow(problem: Given, batch: Any) -> Tensor:
    """|low - up|^2 / 2: the Hessian is the identity, the solution the upper itself."""
    return (problem.module() - problem.upper()).square().sum() / 2


def reach_one(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum() / 2


def ready(lower: Any, upper: Any, method: Any, **parts: Any) -> Engine:
    """An engine whose lower has taken one step where the method needs that."""
    engine = pair(lower, upper, method=method, steps=NEVER, lr=parts.pop("lr", 1.0), **parts)
    if method == "unroll" or isinstance(method, Unroll):
        engine.step()
    return engine


def close(got: Tensor, expected: Tensor | list[float], within: float = CLOSED_FORM) -> None:
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=within, atol=within)


def weighted(*weights: float) -> Any:
    """A lower loss with the Hessian diag(weights)."""

    def loss(problem: Given, batch: Any) -> Tensor:
        return (torch.tensor(weights) * problem.module().square()).sum() / 2 - problem.module() @ problem.upper()

    return loss


def linear(problem: Given, batch: Any) -> Tensor:
    """An upper loss with the cotangent (1, 1, ...)."""
    return problem.lower().sum()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 2.0])
def test_b1_the_scale_of_cg_does_not_change_its_answer(alpha: float) -> None:
    engine = pair(weighted(1.0, 4.0), linear, method=CG(2, alpha=alpha), modules=[Vector(0.0, 0.0), Vector(0.0, 0.0)])
    close(engine.hypergradient("upper")[0], [1.0, 0.25])


@every_method
@pytest.mark.parametrize(("response", "expected"), [("total", 1.7), ("direct", 0.0)])
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
        if response == "direct":  # the middle's step is taken without low's response as well
            engine["mid"].module.value.data.fill_(-0.7)
            return
    close(engine.hypergradient("top")[0], [expected], FINITE_DIFFERENCE)


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
    if method == "exact":
        method_: Any = "exact"  # H is singular along the unused one, and the cotangent has no part there
    else:
        method_ = method
    plain = ready(follow, reach_one, method_, modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    engine = ready(follow, reach_one, method_, modules=[Backbone(), Vector(2.0, 3.0)])
    calls = engine["lower"].module.calls.clone()
    got, before = engine.hypergradient("upper"), flat_state(engine)
    close(got[0], plain.hypergradient("upper")[0])
    assert_same(engine["lower"].module.calls, calls)
    engine.step()
    assert_same(flat_state(engine)["lower.frozen"], before["lower.frozen"])


def test_b19_cg_that_has_converged_stops() -> None:
    engine = pair(follow, reach_one, method=CG(5), modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    close(engine.hypergradient("upper")[0], [1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["darts", "sama"])
def test_b20_b21k_a_thousand_differences_move_no_bit(method: str, dtype: torch.dtype) -> None:
    engine = pair(follow, reach_one, method=method, modules=[Vector(2.1, 3.3).to(dtype), Vector(2.7, 3.9).to(dtype)])
    before = flat_state(engine)
    for _ in range(1000):
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


@pytest.mark.parametrize("method", [CG(2), Neumann(200, 0.3), Exact()], ids=lambda m: m.name)
def test_b23_b26b_several_tensors_are_one_system(method: Method) -> None:
    """x^2 + x y + y^2 - x a - y b over two tensors: (2 1; 1 2)^-1 (1, 1) = (1, 1) / 3, not the diagonal's (1, 1) / 2."""

    def objective(solution: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        x, y = solution["x"], solution["y"]
        return (x.square() + x * y + y.square() - x * a - y * b).sum()

    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    response = best_response(objective, {"x": torch.zeros(1), "y": torch.zeros(1)}, a, b, method=method)
    got = torch.autograd.grad((response["x"] + response["y"]).sum(), (a, b))
    close(torch.cat(got), [1 / 3, 1 / 3], CONVERGED)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_b24_an_inner_gradient_of_exactly_zero(optimizer: type[torch.optim.Optimizer]) -> None:
    """The root of a second moment has no derivative at zero; its product with a zero gradient does."""
    low = Vector(2.0, 3.0)
    given = Given(
        "lower",
        lambda p, b: (p.module()[0] - p.upper()[0]).square() + 0 * p.module()[1],
        low,
        optimizer=optimizer(low.parameters(), lr=0.1),
        config=Config(type="unroll", unroll_steps=NEVER),
    )
    engine = Engine([Given("upper", reach_one, Vector(1.0, 1.0)), given], edges=[("upper", "lower")])
    engine.step()
    got = engine.hypergradient("upper")[0]
    assert got.isfinite().all()
    assert got[1] == 0


def test_b25_inputs_may_stand_anywhere() -> None:
    def objective(x: Tensor, constant: float, unused: Tensor, a: Tensor) -> Tensor:
        return (constant * x.square() / 2 - x * a).sum()

    a = torch.ones(2, requires_grad=True)
    response = best_response(objective, torch.full((2,), 0.25), 4.0, torch.ones(3), a, method=CG(2))
    close(torch.autograd.grad(response.sum(), a)[0], [0.25, 0.25])


def test_b25a_b42_second_derivatives_of_a_response() -> None:
    """x* = a / (1 + b): d2x / da db = - 1 / (1 + b)^2, and by the solve's own derivative."""

    def objective(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ((1 + b) * x.square() / 2 - x * a).sum()

    a, b = torch.tensor([3.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    response = best_response(objective, torch.tensor([1.5]), a, b, method=CG(3))
    (slope,) = torch.autograd.grad(response.sum(), a, create_graph=True)
    close(slope.detach(), [0.5])
    close(torch.autograd.grad(slope.sum(), b)[0], [-0.25])


@pytest.mark.parametrize(("iterations", "expected"), [(0, 0.5), (1, 0.75), (2, 0.875)])
def test_b25b_neumann_counts_products(iterations: int, expected: float) -> None:
    """K products make K + 1 terms, here of 1 / 2, 1 / 4, ...; the same K everywhere."""
    engine = pair(weighted(1.0), linear, method=Neumann(iterations, 0.5), modules=[Vector(0.0), Vector(0.0)])
    close(engine.hypergradient("upper")[0], [expected])


@pytest.mark.parametrize("iterations", [1, 5])
def test_b26_b27_cg_returns_the_iterate_that_converged(iterations: int) -> None:
    engine = pair(follow, linear, method=CG(iterations), modules=[Vector(2.0), Vector(2.0)])
    close(engine.hypergradient("upper")[0], [1.0])


def test_b26_two_distinct_eigenvalues_and_twenty_iterations() -> None:
    modules = [Vector(*[0.0] * 4), Vector(*[0.0] * 4)]
    engine = pair(weighted(1.0, 1.0, 3.0, 3.0), linear, method=CG(20), modules=modules)
    close(engine.hypergradient("upper")[0], [1.0, 1.0, 1 / 3, 1 / 3], EXACT)


def test_b26a_the_first_step_with_momentum_is_that_of_torch() -> None:
    """Zero gradient, momentum 0.9: the parameter stays at 1, and so does the derivative of where it started."""
    low = Vector(1.0)
    optimizer = torch.optim.SGD(low.parameters(), lr=0.5, momentum=0.9)
    given = Given("lower", follow, low, optimizer=optimizer, config=Config(type="unroll", unroll_steps=NEVER))
    engine = Engine([Given("upper", linear, Vector(1.0)), given], edges=[("upper", "lower")])
    engine.step()
    engine.step()
    assert low.value.item() == 1.0
    # theta_1 = x / 2 + ..., b_2 = 0.9 b_1 + g_2: d theta_2 / dx = 1/2 + 1/2 (0.9 + (1 - 1/2)).
    close(engine.hypergradient("upper")[0], [0.5 + 0.5 * (0.9 + 0.5)])


@every_method
def test_b28_the_uppers_grad_is_left_alone(method: str) -> None:
    def lower(problem: Given, batch: Any) -> Tensor:
        return follow(problem, batch) + 3 * problem.upper().sum()

    engine = ready(lower, reach_one, method, modules=[Vector(2.0), Vector(2.0)])
    engine["upper"].module.value.grad = torch.tensor([7.0])
    engine.hypergradient("upper")
    assert_same(engine["upper"].module.value.grad, torch.tensor([7.0]))


def test_b29_every_step_of_an_inner_loop_has_its_own_gradient() -> None:
    engine = pair(follow, linear, method="unroll", modules=[Vector(0.0), Vector(2.0)], steps=NEVER, lr=0.1)
    for _ in range(11):
        engine.step()
    close(engine["lower"].module.value.detach(), [2 * (1 - 0.9**11)])
    close(engine.hypergradient("upper")[0], [1 - 0.9**11])


def test_b30_the_history_of_a_solution_does_not_count_twice() -> None:
    a = torch.tensor([2.0], requires_grad=True)
    unrolled = a * 0.1 + 1.8  # one step of the lower, with its graph
    response = best_response(lambda x, a: (x - a).square().sum() / 2, unrolled, a, method=CG(2))
    close(torch.autograd.grad(response.sum(), a)[0], [1.0])


@every_method
def test_b33_a_zero_upper_gradient_gives_zero_and_moves_nothing(method: str) -> None:
    def constant_in_lower(problem: Given, batch: Any) -> Tensor:
        return 0 * problem.lower().sum() + problem.module().sum()

    engine = ready(follow, constant_in_lower, method, modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    before = flat_state(engine)
    close(engine.hypergradient("upper")[0], [1.0, 1.0], 0.0)
    assert_same(flat_state(engine), before)


@pytest.mark.parametrize("method", ["darts", "cg", "identity"])
def test_b35_a_hypergradient_that_is_no_number_is_refused_and_named(method: str) -> None:
    def broken(problem: Given, batch: Any) -> Tensor:
        return follow(problem, batch) * (problem.upper() - problem.upper()).sum().sqrt()

    engine = pair(broken, reach_one, method=method, engine=EngineConfig(log_step=1))
    with pytest.raises(NonFiniteError, match="upper|lower"):
        engine.step()


def test_b37_b38_maximize_is_part_of_the_update() -> None:
    low = Vector(1.0)
    optimizer = torch.optim.SGD(low.parameters(), lr=0.1, maximize=True)
    given = Given(
        "lower", lambda p, b: -follow(p, b), low, optimizer=optimizer, config=Config(type="unroll", unroll_steps=NEVER)
    )
    engine = Engine([Given("upper", linear, Vector(2.0)), given], edges=[("upper", "lower")])
    engine.step()
    close(low.value.detach(), [1.1])
    close(engine.hypergradient("upper")[0], [0.1])


@pytest.mark.parametrize(("method", "factor"), [(Sama(), 1.0), (Unroll(), 1.0)], ids=["sama", "unroll"])
def test_b12_parameter_groups_keep_their_learning_rates(method: Method, factor: float) -> None:
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
    close(engine.hypergradient("upper")[0], [0.5 * factor, 1e-3 * factor], FINITE_DIFFERENCE)


# --- Degenerate systems and what else was found while measuring (baseline.md sections 3 to 7). ---


@every_method
def test_a_lower_loss_that_does_not_depend_on_the_upper(method: str) -> None:
    engine = ready(
        lambda p, b: (p.module() - 2).square().sum(), reach_one, method, modules=[Vector(1.5), Vector(1.0)], lr=0.1
    )
    close(engine.hypergradient("upper")[0], [0.0], 0.0)


def test_a_series_that_diverges_says_so() -> None:
    engine = pair(weighted(1.0, 6.0), linear, method=Neumann(20, 1.0), modules=[Vector(0.0, 0.0), Vector(0.0, 0.0)])
    with pytest.warns(NumericsWarning, match=r"eigenvalue of about 6.*alpha"):
        engine.hypergradient("upper")


def test_cg_without_a_tolerance_may_run_past_convergence() -> None:
    modules = [Vector(*[0.0] * 3), Vector(*[0.0] * 3)]
    engine = pair(weighted(1.0, 2.0, 3.0), linear, method=CG(50, tolerance=0.0), modules=modules)
    close(engine.hypergradient("upper")[0], [1.0, 1 / 2, 1 / 3])


@every_method
def test_the_upper_may_be_read_as_an_expanded_sum(method: str) -> None:
    """The gradient of ``sum()`` is one number in many places; writing to it in place would fail."""

    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper().sum()).square().sum() / 2

    engine = ready(lower, linear, method, modules=[Vector(2.0), Vector(1.0, 0.5, 0.5)])
    expected = 1 / 1.01 if method == "nystrom" else 1.0
    close(engine.hypergradient("upper")[0], [expected] * 3, FINITE_DIFFERENCE)
    engine.step()


def reweighted(*, detach: bool) -> Any:
    """The loss of Meta-Weight-Net: each sample's loss times a weight that is computed from it."""

    def loss(problem: Given, batch: Any) -> Tensor:
        losses = torch.cosh(problem.module() - torch.tensor([0.5, -1.0, 2.0]))
        seen = losses.detach() if detach else losses
        return ((problem.upper() * seen).sigmoid() * losses).sum()

    return loss


@pytest.mark.parametrize("method", ["identity", "unroll", "darts", "sama"])
@pytest.mark.parametrize("detach", [False, True])
def test_a_detached_loss_is_right_with_autograd_and_off_with_differences(method: str, detach: bool) -> None:
    """Against the derivative of the step that the lower takes, v' d(step) / d(upper), by finite differences of steps."""
    start, at = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, -0.3, 0.6])

    def step(upper: Tensor) -> Tensor:
        """The lower after one step of SGD with a learning rate of 1."""
        engine = pair(reweighted(detach=detach), linear, modules=[Vector(*start), Vector(*upper)], steps=NEVER, lr=1.0)
        engine.step()
        return engine["lower"].module.value.detach()

    size = 1e-5
    truth = torch.stack([(step(at + size * e) - step(at - size * e)).sum() / (2 * size) for e in torch.eye(3)])
    type_: Any = {"name": method, "alpha": 1e-4} if method in ("darts", "sama") else method
    engine = pair(
        reweighted(detach=detach), linear, method=type_, modules=[Vector(*start), Vector(*at)], steps=NEVER, lr=1.0
    )
    if method == "unroll":
        engine.step()
    error = ((engine.hypergradient("upper")[0] - truth).norm() / truth.norm()).item()
    if detach and method in ("darts", "sama"):
        assert error > 0.1
    else:
        assert error < FINITE_DIFFERENCE
    assert math.isfinite(error)
