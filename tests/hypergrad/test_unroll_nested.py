"""Unroll on quadratics with closed forms, from a start that is an input, and inside other levels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.method import Method
from multilevel.hypergrad.moving import Response
from multilevel.hypergrad.objective import Evaluation, Objective
from multilevel.hypergrad.response import respond
from multilevel.hypergrad.tape import Tape
from multilevel.hypergrad.tensors import Tensors
from multilevel.hypergrad.unroll import Unroll

from ..conftest import CLOSED_FORM, FINITE_DIFFERENCE

Function = Callable[[Tensors, Tensors], Evaluation]
LR = 0.2


def _descended(
    function: Callable[[int, Tensors], Function], start: Tensor, inputs: Tensors, steps: int
) -> tuple[Tensor, Tape]:
    """Plain gradient descent; ``function`` makes the objective of a step at its point."""
    theta = start.clone().requires_grad_()
    optimizer = SGD([theta], lr=LR)
    tape = Tape.begin(optimizer, [theta])
    for k in range(steps):
        objective = function(k, (theta.detach().clone(),))
        tape.record(optimizer, [Objective(objective)])
        (theta.grad,) = torch.autograd.grad(objective((theta,), inputs).loss, theta)
        optimizer.step()
    return theta.detach(), tape


def _quadratic() -> tuple[Tensor, Tensor, Function]:
    """theta' A theta / 2 - theta' B phi with eigenvalues of A between 0.5 and 2.5."""
    basis, _ = torch.linalg.qr(torch.randn(4, 4))
    A, B = basis @ torch.diag(torch.linspace(0.5, 2.5, 4)) @ basis.T, torch.randn(4, 3)

    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        return Evaluation(theta[0] @ A @ theta[0] / 2 - theta[0] @ B @ inputs[0])

    return A, B, function


@pytest.mark.parametrize(("steps", "truncation"), [(1, 0), (9, 0), (9, 1), (9, 4), (9, 9), (9, 30)])
def test_pull_back_is_the_geometric_series(steps: int, truncation: int) -> None:
    """lr B' (I + M + ... + M^(T-1)) v with M = I - lr A, T the number of steps that count."""
    A, B, function = _quadratic()
    phi, v = torch.randn(3), torch.randn(4)
    solution, tape = _descended(lambda k, point: function, torch.randn(4), (phi,), steps)
    at = Linearization(Objective(function, tape=tape), (solution,), (phi,))
    (got,) = Unroll(truncation).pull_back(at, (v,))
    M, counted = torch.eye(4) - LR * A, min(steps, truncation or steps)
    series = sum(torch.linalg.matrix_power(M, j) for j in range(counted))
    torch.testing.assert_close(got, LR * B.T @ series @ v, rtol=CLOSED_FORM, atol=CLOSED_FORM)


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("truncation", [0, 6, 5])
def test_a_start_that_is_the_input_itself(differentiable: bool, truncation: int) -> None:
    """MAML with a proximal term: theta_0 = phi, |theta - c|^2 / 2 + w |theta - phi|^2 / 2, so M = 1 - lr (1 + w)."""
    w, steps, c = 0.5, 6, torch.randn(3)

    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        return Evaluation((theta[0] - c).square().sum() / 2 + w * (theta[0] - inputs[0]).square().sum() / 2)

    phi, v = torch.randn(3), torch.randn(3)
    solution, tape = _descended(lambda k, point: function, phi, (phi,), steps)
    tape.initial = lambda inputs: inputs
    at = Linearization(Objective(function, tape=tape), (solution,), (phi,), differentiable=differentiable)
    (got,) = Unroll(truncation).pull_back(at, (v,))
    M, counted = 1 - LR * (1 + w), min(steps, truncation or steps)
    factor = LR * w * sum(M**j for j in range(counted)) + (M**steps if counted == steps else 0.0)
    torch.testing.assert_close(got.detach(), factor * v, rtol=CLOSED_FORM, atol=CLOSED_FORM)


# --- Three levels: z follows (y, x), y follows x. Everything is nonlinear, so that second derivatives matter. ---


def _low(z: Tensors, inputs: Tensors) -> Evaluation:
    y, x = inputs
    return Evaluation((z[0].square() / 2 + torch.cosh(z[0] - torch.tanh(y)) / 2 - z[0] * x.sin()).sum())


def _mid(y: Tensor, z: Tensor, x: Tensor) -> Tensor:
    return (y - x).square().sum() / 2 + (torch.tanh(y) * z).sum() / 3 + z.square().sum() / 4


def _top(y: Tensor, z: Tensor, x: Tensor) -> Tensor:
    return (y - 1).square().sum() + (y * z).sum() + (z * x).cos().sum()


STEPS = 4
START = torch.tensor([0.3, -0.5], dtype=torch.float64)


def _unrolled(y: Tensor, x: Tensor) -> Tensor:
    """The low level's program as plain differentiable torch."""
    z = START.clone().requires_grad_()
    for _ in range(STEPS):
        (gradient,) = torch.autograd.grad(_low((z,), (y, x)).loss, z, create_graph=True)
        z = z - LR * gradient
    return z


def _solved(x: Tensor) -> Tensor:
    """The middle level's minimum, by Newton's method on the program below it."""
    y = x.detach().clone()

    def total(y: Tensor) -> Tensor:
        return _mid(y, _unrolled(y, x), x)

    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(total, y)
        y = y - torch.linalg.solve(torch.autograd.functional.hessian(total, y), gradient)
    return y


def _low_response(y: Tensor, x: Tensor, tape: Tape, solution: Tensor) -> Tensor:
    (z,) = respond(Unroll(), Objective(_low, tape=tape), (solution,), (y, x))
    return z


def _mid_objective(tape: Tape, solution: Tensor) -> Objective:
    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        return Evaluation(_mid(theta[0], _low_response(theta[0], inputs[0], tape, solution), inputs[0]))

    return Objective(function)


def test_an_unrolled_level_inside_an_implicit_one() -> None:
    x = torch.tensor([0.7, -0.4], requires_grad=True)
    y = _solved(x.detach())
    z, tape = _descended(lambda k, point: _low, START, (y, x.detach()), STEPS)
    torch.testing.assert_close(z, _unrolled(y, x.detach()).detach(), rtol=CLOSED_FORM, atol=CLOSED_FORM)
    (response,) = respond(CG(iterations=10), _mid_objective(tape, z), (y,), (x,))
    (got,) = torch.autograd.grad(_top(response, _low_response(response, x, tape, z), x), x)

    def program(x: Tensor) -> Tensor:
        y = _solved(x)
        return _top(y, _unrolled(y, x).detach(), x)

    size = 1e-5
    expected = torch.stack(
        [(program(x.detach() + size * e) - program(x.detach() - size * e)) / (2 * size) for e in torch.eye(2)]
    )
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


def test_a_first_order_level_moves_an_unrolled_one_along() -> None:
    """darts on the middle level differences its total derivative: the low loop is run again beside its point."""
    x, v = torch.tensor([0.7, -0.4]), torch.randn(2)
    y = torch.randn(2)
    z, tape = _descended(lambda k, point: _low, START, (y, x), STEPS)
    (got,) = Darts(alpha=1e-4).pull_back(Linearization(_mid_objective(tape, z), (y,), (x,)), (v,))
    ys, xs = y.clone().requires_grad_(), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_mid(ys, _unrolled(ys, xs), xs), ys, create_graph=True)
    (mixed,) = torch.autograd.grad(gradient @ v, xs)
    torch.testing.assert_close(got, -mixed, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


# --- A level that is unrolled itself while another responds inside it: z* = y - x / 2 exactly, by any inverse. ---


def _follower(z: Tensors, inputs: Tensors) -> Evaluation:
    y, x = inputs
    return Evaluation((z[0] - y + x / 2).square().sum() / 2)


def _leader(method: Method, inputs: Tensors) -> Callable[[int, Tensors], Function]:
    def at_step(k: int, point: Tensors) -> Function:
        solution = (point[0] - inputs[0] / 2,)  # where the follower was when this step was taken

        def function(theta: Tensors, inputs: Tensors) -> Evaluation:
            (z,) = respond(method, Objective(_follower), solution, (theta[0], inputs[0]))
            return Evaluation(_mid(theta[0], z, inputs[0]))

        return function

    return at_step


def test_a_level_with_a_response_inside_is_unrolled_with_it() -> None:
    x, v, size = torch.tensor([0.7, -0.4]), torch.randn(2), 1e-5

    def run(x: Tensor) -> tuple[Tensor, Tape]:
        return _descended(_leader(CG(iterations=5), (x,)), START, (x,), STEPS)

    y, tape = run(x)
    (got,) = Unroll().pull_back(Linearization(Objective(_follower, tape=tape), (y,), (x,)), (v,))
    expected = torch.stack([(run(x + size * e)[0] - run(x - size * e)[0]) @ v / (2 * size) for e in torch.eye(2)])
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


def test_displacement_lets_the_response_inside_follow() -> None:
    """The follower is linear with a Hessian of one, so its first-order move is exact, and so is the displacement."""
    x, other = torch.tensor([0.7, -0.4]), torch.tensor([0.1, 0.2])
    (y, tape), (beside, _) = (_descended(_leader(Darts(), (t,)), START, (t,), STEPS) for t in (x, other))
    base = Response(Unroll(), Objective(_follower, tape=tape), (y,), (x,))
    (got,) = Unroll().displacement(base, base._replace(inputs=(other,)))
    torch.testing.assert_close(got, beside - y, rtol=CLOSED_FORM, atol=CLOSED_FORM)
