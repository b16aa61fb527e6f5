"""Extreme eigenvalues of a symmetric matrix from products with it.

Power iteration keeps two vectors; Lanczos keeps one per iteration and is far more accurate (Golub and Van Loan 2013,
sections 8.2 and 10.1; Kuczynski and Wozniakowski 1992 for the errors from a random start).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import Product, rounding, working, working_product
from .tensors import Tensors, dot, norm, scale, total_size


def random_direction(like: Sequence[Tensor], seed: int) -> Tensors:
    """A random vector of length 1 in the working precision. The global generators are neither read nor moved."""
    generator = torch.Generator().manual_seed(seed)
    vector = tuple(
        torch.randn(t.shape, generator=generator, dtype=w.dtype).to(t.device)
        for t, w in zip(like, working(like), strict=True)
    )
    return scale(vector, 1.0 / norm(vector))


@torch.no_grad()
def largest_eigenvalue(product: Product, like: Sequence[Tensor], iterations: int = 20, seed: int = 0) -> float:
    """Estimate the eigenvalue of largest magnitude by power iteration.

    Args:
        product: Multiplies the matrix by a vector.
        like: Tensors with the shapes, dtypes and devices of a vector.
        iterations: Products to spend.
        seed: Of the random start.

    Returns:
        The Rayleigh quotient of the last vector: with its sign, and never above the truth in magnitude.
    """
    multiply = working_product(product, like)
    vector = random_direction(like, seed)
    estimate = 0.0
    for _ in range(iterations):
        image = multiply(vector)
        estimate, length = torch.stack([dot(vector, image), norm(image)]).tolist()
        if length == 0.0:
            return 0.0
        vector = scale(image, 1.0 / length)
    return estimate


@torch.no_grad()
def extreme_eigenvalues(
    product: Product, like: Sequence[Tensor], iterations: int = 30, seed: int = 0
) -> tuple[float, float]:
    """Estimate the smallest and the largest eigenvalue by Lanczos with full reorthogonalisation.

    Args:
        product: Multiplies the matrix by a vector.
        like: Tensors with the shapes, dtypes and devices of a vector.
        iterations: Products to spend; as many vectors are kept. Exact at the number of distinct eigenvalues.
        seed: Of the random start.

    Returns:
        (smallest, largest), each inside the true spectrum.
    """
    multiply = working_product(product, like)
    basis = [random_direction(like, seed)]
    centres: list[float] = []
    couplings: list[float] = []
    for _ in range(min(iterations, total_size(like))):
        vector = tuple(t.clone() for t in multiply(basis[-1]))
        centres.append(dot(basis[-1], vector).item())
        for _ in range(2):  # twice is enough to be orthogonal to working precision (Parlett 1998, section 6.9)
            for earlier in basis:
                torch._foreach_add_(vector, earlier, alpha=-dot(earlier, vector).item())
        length = norm(vector).item()
        if length <= rounding(vector) * max(abs(c) for c in (*centres, *couplings)):
            break  # the basis spans an invariant subspace
        couplings.append(length)
        basis.append(scale(vector, 1.0 / length))
    inner = couplings[: len(centres) - 1]
    tridiagonal = torch.diag(torch.tensor(centres, dtype=torch.float64))
    if inner:
        beside = torch.tensor(inner, dtype=torch.float64)
        tridiagonal = tridiagonal + torch.diag(beside, 1) + torch.diag(beside, -1)
    if not tridiagonal.isfinite().all():
        return float("nan"), float("nan")
    eigenvalues = torch.linalg.eigvalsh(tridiagonal)
    return eigenvalues[0].item(), eigenvalues[-1].item()
