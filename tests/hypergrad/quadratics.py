"""Objectives with known derivatives for the solvers' tests, and a count of the products that a solver spends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.objective import Evaluation, Objective, State
from multilevel.hypergrad.tensors import Tensors, flatten, unflatten

Shapes: TypeAlias = Sequence[tuple[int, ...]]
SHAPES: Shapes = ((2, 3), (), (3,))
"""Three tensors of 10 entries together, one of them a scalar."""


def symmetric(eigenvalues: Sequence[float], seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    values = torch.tensor(eigenvalues)
    vectors, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)))
    return vectors @ torch.diag(values) @ vectors.mT


def random_tensors(*shapes: tuple[int, ...], seed: int = 1) -> Tensors:
    """One random tensor of each shape."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


class CountingLinearization(Linearization):
    """Counts the products with H."""

    products = 0

    def hessian_product(self, vector: Tensors) -> Tensors:
        self.products += 1
        return super().hessian_product(vector)


def quadratic(
    matrix: Tensor,
    shapes: Shapes | None = None,
    *,
    state: State | None = None,
    dtype: torch.dtype | None = None,
) -> CountingLinearization:
    """theta^T A theta / 2 - theta^T phi at a random point, theta cut into tensors of the given shapes."""
    size = len(matrix)
    solution = tuple(t.to(dtype or matrix.dtype) for t in random_tensors(*(shapes or [(size,)]), seed=2))
    phi = torch.randn(size, generator=torch.Generator().manual_seed(3)).to(dtype or matrix.dtype)

    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        flat = flatten(theta)
        return Evaluation(flat @ (matrix.to(flat) @ flat) / 2 - flat @ inputs[0])

    return CountingLinearization(Objective(function, {} if state is None else state), solution, (phi,))


def dense_solve(matrix: Tensor, vector: Tensors) -> Tensors:
    """The oracle: A^{-1} v by LU."""
    return unflatten(torch.linalg.solve(matrix, flatten(vector)), vector)
