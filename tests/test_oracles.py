"""The oracles are right: what they call solved is solved, and their two ways to a gradient agree."""

from __future__ import annotations

import pytest
import torch

from .conftest import CONVERGED
from .hierarchies import BILEVEL, NESTED, SIBLINGS, reference, solved
from .oracles import Formula, difference_gradient, total_loss
from .scalable_hierarchies import unit_quadratics

PROBLEMS = [*BILEVEL, *SIBLINGS, *NESTED]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_below_is_at_the_minimum_of_its_total_loss(problem: str) -> None:
    """By values alone: everything below is solved again beside the solution, and the loss is larger on both sides."""
    hierarchy, values = solved(problem)
    for name in hierarchy.losses:
        if name not in hierarchy.tops:
            here = total_loss(hierarchy, values, name)
            assert difference_gradient(hierarchy, values, name).norm() < 1e-9 * (1 + here.abs())
            for direction in torch.eye(len(values[name])):
                for sign in (-1, 1):
                    beside = {**values, name: values[name] + sign * 0.05 * direction}
                    assert total_loss(hierarchy, beside, name) > here


@pytest.mark.parametrize("problem", PROBLEMS)
def test_dense_algebra_agrees_with_differences_of_the_solved_hierarchy(problem: str) -> None:
    hierarchy, values = solved(problem)
    for top, expected in reference(problem).items():
        got = Formula(hierarchy, values).gradient(top, values)
        assert (got - expected).norm() < CONVERGED * 1e-2 * expected.norm()


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_unit_quadratics_have_unit_total_hessians(depth: int) -> None:
    hierarchy, values = unit_quadratics(depth)
    for name in list(hierarchy.losses)[1:]:
        torch.testing.assert_close(Formula(hierarchy, values).hessian(name, values), torch.eye(2))
    expected = difference_gradient(hierarchy, values, "level0")
    torch.testing.assert_close(Formula(hierarchy, values).gradient("level0", values), expected)
