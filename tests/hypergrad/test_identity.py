"""The identity: minus the mixed derivative, and no product with H."""

from __future__ import annotations

import torch

from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.objective import Evaluation, Objective
from multilevel.hypergrad.registry import build_method
from multilevel.hypergrad.tensors import Tensors

from ..conftest import EXACT
from .quadratics import SHAPES, quadratic, random_tensors


def test_minus_the_mixed_derivative_without_any_hessian_product() -> None:
    theta, (phi,), (vector,) = random_tensors((4,), (2, 3)), random_tensors((5,), seed=3), random_tensors((4,), seed=4)
    mixing, beside = torch.randn(4, 5), torch.randn(5)

    def function(solution: Tensors, inputs: Tensors) -> Evaluation:
        return Evaluation((solution[0].sin() @ mixing) @ inputs[0] ** 2 + solution[1].sum() * (beside @ inputs[0]))

    zero = torch.zeros(2, 3)
    (got,) = Identity().pull_back(Linearization(Objective(function), theta, (phi,)), (vector, zero))
    expected = -2 * phi * (mixing.mT @ (theta[0].cos() * vector))
    torch.testing.assert_close(got, expected, rtol=EXACT, atol=EXACT)


def test_exact_where_the_hessian_is_the_identity() -> None:
    at, vector = quadratic(torch.eye(10), SHAPES), random_tensors(*SHAPES)
    (got,) = Identity().pull_back(at, vector)
    torch.testing.assert_close(got, torch.cat([t.reshape(-1) for t in vector]), rtol=EXACT, atol=EXACT)
    assert at.products == 0


def test_unused_input_gets_zero() -> None:
    at = Linearization(
        Objective(lambda theta, phi: Evaluation((theta[0] ** 2).sum())), (torch.ones(2),), (torch.ones(3),)
    )
    assert torch.equal(Identity().pull_back(at, (torch.ones(2),))[0], torch.zeros(3))


def test_found_by_name() -> None:
    assert build_method("identity") == Identity()
