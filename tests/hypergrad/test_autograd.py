"""Backward passes without torch's checks give what torch gives, and refuse what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multilevel.hypergrad.autograd import scalar_gradients, vector_products

SEED = 0


@pytest.fixture
def points() -> tuple[Tensor, Tensor, Tensor]:
    """The last is in no loss."""
    generator = torch.Generator().manual_seed(SEED)
    x, y, unused = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in ((3, 2), (2,), (4,))
    )
    return x, y, unused


def _outputs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x.sin() @ y, x.exp() * y)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_a_scalar(points: tuple[Tensor, Tensor, Tensor], create_graph: bool) -> None:
    x, y, _ = points
    expected = torch.autograd.grad(_outputs(x, y)[0].square().sum(), (x, y))
    *found, none = scalar_gradients(_outputs(x, y)[0].square().sum(), points, create_graph=create_graph)
    assert none is None
    torch.testing.assert_close(tuple(found), expected, rtol=0, atol=0)
    assert all(g is not None and g.requires_grad == create_graph for g in found)


@pytest.mark.parametrize("create_graph", [False, True])
def test_products_with_vectors(points: tuple[Tensor, Tensor, Tensor], create_graph: bool) -> None:
    x, y, _ = points
    vectors = tuple(torch.ones_like(t) for t in _outputs(x, y))
    expected = torch.autograd.grad(_outputs(x, y), (x, y), vectors)
    outputs = _outputs(x, y)
    for _ in range(2):  # the graph is kept
        *found, none = vector_products(outputs, points, vectors, retain_graph=True, create_graph=create_graph)
        assert none is None
        torch.testing.assert_close(tuple(found), expected, rtol=0, atol=0)
        assert all(g is not None and g.requires_grad == create_graph for g in found)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 3, 2)])
def test_a_vector_of_another_shape_is_refused(points: tuple[Tensor, Tensor, Tensor], shape: tuple[int, ...]) -> None:
    x, y, _ = points
    vector = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="shape"):
        vector_products((x * y,), (x, y), (vector,), retain_graph=False, create_graph=False)
