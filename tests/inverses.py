"""The closed forms of what methods put in place of H^{-1}, as dense algebra."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from .oracles import Inverse

Solve = Callable[[Tensor, Tensor], Tensor]


def scaled_identity(factor: float = 1.0, *, first_order: bool = False) -> Inverse:
    """``factor`` I; ``first_order`` for darts and sama."""
    return Inverse(lambda H: factor * torch.eye(len(H)), first_order)


def neumann_series(iterations: int, alpha: float) -> Inverse:
    """alpha sum over k = 0..iterations of (I - alpha H)^k."""

    def matrix(H: Tensor) -> Tensor:
        term = torch.eye(len(H)) - alpha * H
        return alpha * sum(torch.linalg.matrix_power(term, k) for k in range(iterations + 1))

    return Inverse(matrix)


def nystrom_sketch(rank: int, damping: float, seed: int = 0) -> Inverse:
    """(C W^+ C' + damping I)^{-1} with the positive part of W, of the columns that a seed takes first."""

    def matrix(H: Tensor) -> Tensor:
        size = len(H)
        columns = sorted(random.Random(f"{seed}/0").sample(range(size), min(rank, size)))
        C, W = H[:, columns], H[columns][:, columns]
        curvatures, basis = torch.linalg.eigh((W + W.mT) / 2)
        positive = curvatures > 1e-12 * curvatures.abs().amax()  # W^+ of the rest is left out
        B = C @ (basis[:, positive] / curvatures[positive].sqrt())
        return torch.linalg.inv(B @ B.mT + damping * torch.eye(size))

    return Inverse(matrix)


def damped(damping: float) -> Inverse:
    """(H + damping I)^{-1}."""
    return Inverse(lambda H: torch.linalg.inv(H + damping * torch.eye(len(H))))


def krylov_basis(H: Tensor, v: Tensor, size: int) -> Tensor:
    """An orthonormal basis of span{v, Hv, ..., H^(size-1) v}, one column each."""
    columns = [v / v.norm()]
    for _ in range(min(size, len(v)) - 1):
        following = H @ columns[-1]
        for _ in range(2):
            for column in columns:
                following = following - (column @ following) * column
        columns.append(following / following.norm())
    return torch.stack(columns, dim=1)


def conjugate_gradient(iterations: int) -> Solve:
    """The x of the Krylov space with the smallest error in the norm of H."""

    def solve(H: Tensor, v: Tensor) -> Tensor:
        V = krylov_basis(H, v, iterations)
        return V @ torch.linalg.solve(V.mT @ H @ V, V.mT @ v)

    return solve


def minimal_residual(iterations: int) -> Solve:
    """The x of the Krylov space with the smallest residual."""

    def solve(H: Tensor, v: Tensor) -> Tensor:
        V = krylov_basis(H, v, iterations)
        return V @ torch.linalg.lstsq(H @ V, v.unsqueeze(1)).solution.squeeze(1)

    return solve
