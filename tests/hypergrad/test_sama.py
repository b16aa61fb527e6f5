"""Sama: - B' P v with P the derivative of the optimizer's next step, against dense matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.objective import Evaluation, Objective
from multilevel.hypergrad.response import respond
from multilevel.hypergrad.sama import Sama
from multilevel.hypergrad.tensors import Tensors

from ..conftest import CONVERGED, EXACT, FINITE_DIFFERENCE

SIZES = (3, 2)
OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "maximize": True}),
    (Adam, {"lr": 0.1}),
    (Adam, {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    (RMSprop, {"lr": 0.1, "momentum": 0.5, "centered": True}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1}),
]
every_optimizer = pytest.mark.parametrize(
    ("optimizer_class", "options"), OPTIMIZERS, ids=[f"{c.__name__}-{'-'.join(o)}" for c, o in OPTIMIZERS]
)


class Quadratic:
    """theta' A theta / 2 - theta' B phi over two tensors, the second in the first of two parameter groups."""

    def __init__(self, optimizer_class: type[Optimizer], options: dict[str, Any], trained: int = 3) -> None:
        root = torch.randn(5, 5)
        self.A, self.B = root @ root.T, torch.randn(5, 4)
        self.phi = torch.randn(4)
        self.parameters = tuple(torch.randn(n) for n in SIZES)
        first, second = self.parameters
        groups: list[dict[str, Any]] = [{"params": [second], "lr": 0.03}, {"params": [first]}]
        self.optimizer = optimizer_class(groups, **options)
        self.objective = Objective(self.function, optimizer=self.optimizer, parameters=self.parameters)
        for _ in range(trained):
            self.step(self.gradient())

    def function(self, theta: Tensors, inputs: Tensors) -> Evaluation:
        t = torch.cat(theta)
        return Evaluation(t @ self.A @ t / 2 - t @ self.B @ inputs[0])

    def gradient(self) -> Tensor:
        return self.A @ torch.cat(self.parameters) - self.B @ self.phi

    def step(self, gradient: Tensor) -> None:
        for parameter, part in zip(self.parameters, gradient.split(SIZES), strict=True):
            parameter.grad = part.clone()
        self.optimizer.step()

    def preconditioner(self, gradient: Tensor) -> Tensor:
        """- d theta' / d g, dense, by central differences of torch.optim itself."""
        size, columns = 1e-6, []
        for e in torch.eye(5):
            ends = [self._stepped(gradient + sign * size * e) for sign in (1, -1)]
            columns.append((ends[1] - ends[0]) / (2 * size))
        return torch.stack(columns, 1)

    def _stepped(self, gradient: Tensor) -> Tensor:
        state, before = self.optimizer.state_dict(), [p.clone() for p in self.parameters]
        state = {**state, "state": {k: {n: _copy(t) for n, t in s.items()} for k, s in state["state"].items()}}
        self.step(gradient)
        after = torch.cat(self.parameters).clone()
        for parameter, value in zip(self.parameters, before, strict=True):
            parameter.copy_(value)
        self.optimizer.load_state_dict(state)
        return after

    def at(self, *, differentiable: bool = False) -> Linearization:
        return Linearization(self.objective, self.parameters, (self.phi,), differentiable=differentiable)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _cotangent() -> tuple[Tensors, Tensor]:
    v = torch.randn(5)
    return v.split(SIZES), v


@every_optimizer
@pytest.mark.parametrize("trained", [0, 3])
def test_solve_is_the_derivative_of_the_next_update(
    optimizer_class: type[Optimizer], options: dict[str, Any], trained: int
) -> None:
    problem = Quadratic(optimizer_class, options, trained)
    split, v = _cotangent()
    got = torch.cat(Sama().solve(problem.at(), split))
    expected = problem.preconditioner(problem.gradient()).T @ v
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


@every_optimizer
def test_pull_back_is_dense_algebra(optimizer_class: type[Optimizer], options: dict[str, Any]) -> None:
    """The mixed derivative d2F/dphi dtheta is - B', so - (- B') P v; exact on a quadratic."""
    problem = Quadratic(optimizer_class, options)
    split, _ = _cotangent()
    (got,) = Sama().pull_back(problem.at(), split)
    expected = problem.B.T @ torch.cat(Sama().solve(problem.at(), split))
    torch.testing.assert_close(got, expected, rtol=CONVERGED, atol=CONVERGED)


def test_adam_has_the_closed_form_with_bias_correction() -> None:
    """Of u = lr m^ / (sqrt v^ + eps) with m^ = m / (1 - b1^t), v^ = v / (1 - b2^t) after one step more."""
    (b1, b2), lr, eps, t = (0.8, 0.9), torch.tensor([0.1] * 3 + [0.03] * 2), 1e-3, 4
    problem = Quadratic(Adam, {"lr": 0.1, "betas": (b1, b2), "eps": eps}, trained=t - 1)
    g, split_v = problem.gradient(), _cotangent()
    m, s = (torch.cat([problem.optimizer.state[p][k] for p in problem.parameters]) for k in ("exp_avg", "exp_avg_sq"))
    m, root = (b1 * m + (1 - b1) * g) / (1 - b1**t), ((b2 * s + (1 - b2) * g * g) / (1 - b2**t)).sqrt()
    slope = (1 - b2) / (1 - b2**t) * g / root
    P = lr * ((1 - b1) / (1 - b1**t) / (root + eps) - m * slope / (root + eps) ** 2)
    got = torch.cat(Sama().solve(problem.at(), split_v[0]))
    torch.testing.assert_close(got, P * split_v[1], rtol=EXACT, atol=EXACT)


def test_gradient_descent_is_darts_times_the_learning_rate() -> None:
    problem = Quadratic(SGD, {"lr": 0.1})
    problem.optimizer.param_groups[0]["lr"] = 0.1
    split, _ = _cotangent()
    (sama,), (darts,) = Sama().pull_back(problem.at(), split), Darts().pull_back(problem.at(), split)
    torch.testing.assert_close(sama, 0.1 * darts, rtol=CONVERGED, atol=CONVERGED)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_it_never_differentiates_a_gradient() -> None:
    """An objective whose second derivative raises can be pulled back through."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square().sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient * ctx.saved_tensors[0]

    parameter = torch.randn(3)
    objective = Objective(
        lambda theta, inputs: Evaluation(Once.apply(theta[0] - inputs[0])), optimizer=Adam([parameter], lr=0.1)
    )
    (got,) = Sama().pull_back(Linearization(objective, (parameter,), (torch.randn(3),)), (torch.randn(3),))
    assert got.isfinite().all()


def test_the_pull_back_can_be_differentiated() -> None:
    problem = Quadratic(Adam, {"lr": 0.1, "eps": 0.1})
    split, _ = _cotangent()

    direction, size = torch.randn(4), 1e-5

    def pulled(solution: Tensors, phi: Tensor) -> Tensor:
        response = torch.cat(respond(Sama(), problem.objective, solution, (phi,)))
        (gradient,) = torch.autograd.grad(response.sin() @ torch.cat(split), phi, create_graph=True)
        return gradient @ direction

    def beside(change: Tensor) -> Tensor:
        return pulled(_moved(problem, change), (problem.phi + change).requires_grad_()).detach()

    phi = problem.phi.clone().requires_grad_()
    (got,) = torch.autograd.grad(pulled(problem.parameters, phi), phi)
    # The solution moves as sama says it does; so it is moved along by hand.
    expected = torch.stack([(beside(size * e) - beside(-size * e)) / (2 * size) for e in torch.eye(4)])
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


def _moved(problem: Quadratic, change: Tensor) -> Tensors:
    """theta + P B change."""
    step = Sama().solve(problem.at(), (problem.B @ change).split(SIZES))
    return tuple(p + s for p, s in zip(problem.parameters, step, strict=True))


def test_a_parameter_that_the_loss_ignores_gets_nothing() -> None:
    used, unused = torch.ones(2), torch.ones(3)
    objective = Objective(
        lambda theta, inputs: Evaluation(theta[0] @ inputs[0]), optimizer=SGD([used, unused], lr=0.1, weight_decay=1.0)
    )
    at = Linearization(objective, (used, unused), (torch.ones(2),))
    first, second = Sama().solve(at, (torch.ones(2), torch.ones(3)))
    torch.testing.assert_close(first, torch.full((2,), 0.1), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(second, torch.zeros(3), rtol=0, atol=0)


def test_errors_say_what_is_missing() -> None:
    at = Linearization(Objective(lambda t, i: Evaluation(t[0].sum())), (torch.ones(2),), (torch.ones(2),))
    with pytest.raises(ConfigError, match=r"no optimizer.*darts"):
        Sama().solve(at, (torch.ones(2),))
    wrong = Objective(lambda t, i: Evaluation(t[0].sum()), optimizer=SGD([torch.ones(3)], lr=0.1))
    with pytest.raises(ConfigError, match=r"shapes \[\(2,\)\]; got parameters of \[\(3,\)\]"):
        Sama().solve(Linearization(wrong, (torch.ones(2),), (torch.ones(2),)), (torch.ones(2),))
    parameter = torch.ones(2)
    other = Objective(lambda t, i: Evaluation((t[0] * i[0]).sum()), optimizer=torch.optim.NAdam([parameter]))
    with pytest.raises(ConfigError, match="NAdam cannot be differentiated"):
        Sama().solve(Linearization(other, (parameter,), (torch.ones(2),)), (torch.ones(2),))
    with pytest.raises(ConfigError, match="sama: alpha"):
        Sama(alpha=0.0)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-30, 1.0])
def test_differences_of_vanishing_cotangents_are_finite(size: float) -> None:
    """In float32 a cotangent below 1e-38 has no reciprocal: its difference is taken with a step that has one."""
    curvature = torch.tensor([2.0, 3.0], dtype=torch.float32)

    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        return Evaluation((curvature * theta[0] * (theta[0] / 2 - inputs[0])).sum())

    point = torch.zeros(2, dtype=torch.float32)
    at = Linearization(Objective(function), (point,), (point.clone(),))
    (found,) = Darts().pull_back(at, (torch.full((2,), size, dtype=torch.float32),))
    torch.testing.assert_close(found, curvature * size, rtol=1e-4, atol=1e-36)


def test_an_infinite_cotangent_stays_visible() -> None:
    at = Linearization(Objective(lambda t, i: Evaluation((t[0] * i[0]).sum())), (torch.ones(2),), (torch.ones(2),))
    (found,) = Darts().pull_back(at, (torch.full((2,), float("inf")),))
    assert not found.isfinite().all()
