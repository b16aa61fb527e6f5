"""Arithmetic on tuples of tensors: a vector that keeps the shapes of the parameters it belongs to.

Everything is differentiable and, where torch has a fused ``_foreach`` kernel, one call for the whole tuple. Nothing is
flattened into one long vector: that would copy every parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]


def add(x: Sequence[Tensor], y: Sequence[Tensor], scale: float | Tensor = 1.0) -> Tensors:
    """``x + scale * y``."""
    if isinstance(scale, Tensor):
        return tuple(torch._foreach_add(tuple(x), torch._foreach_mul(tuple(y), scale)))
    return tuple(torch._foreach_add(tuple(x), tuple(y), alpha=scale))


def subtract(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensors:
    """``x - y``."""
    return tuple(torch._foreach_sub(tuple(x), tuple(y)))


def scale(x: Sequence[Tensor], factor: float | Tensor) -> Tensors:
    """``factor * x``."""
    return tuple(torch._foreach_mul(tuple(x), factor))


def negative(x: Sequence[Tensor]) -> Tensors:
    """``-x``."""
    return tuple(torch._foreach_neg(tuple(x)))


def dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Inner product, a 0-dimensional tensor."""
    terms = [torch.dot(a.reshape(-1), b.reshape(-1)) for a, b in zip(x, y, strict=True)]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()


def norm(x: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries together, a 0-dimensional tensor."""
    return torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(tuple(x)))))


def inner(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    """:func:`dot` as a number, which makes the host wait for a GPU."""
    if x[0].device.type != "cpu":
        return dot(x, y).item()
    # Where reading a number costs nothing, adding tensors costs more.
    return sum([torch.dot(a.reshape(-1), b.reshape(-1)).item() for a, b in zip(x, y, strict=True)])


def length(x: Sequence[Tensor]) -> float:
    """:func:`norm` as a number, which makes the host wait for a GPU."""
    if x[0].device.type != "cpu":
        return norm(x).item()
    return math.hypot(*[n.item() for n in torch._foreach_norm(tuple(x))])


def zeros_like(x: Iterable[Tensor]) -> Tensors:
    """Zeros of the same shapes, dtypes and devices."""
    return tuple(torch.zeros_like(t) for t in x)


def filled(gradients: Iterable[Tensor | None], like: Iterable[Tensor]) -> Tensors:
    """Replace the ``None`` that autograd returns for an unused tensor by the zero that it stands for."""
    return tuple([torch.zeros_like(t) if g is None else g for g, t in zip(gradients, like, strict=True)])


def total_size(x: Iterable[Tensor]) -> int:
    """Number of entries in all tensors together."""
    return sum(t.numel() for t in x)


def flatten(x: Iterable[Tensor]) -> Tensor:
    """One vector of shape ``(total_size,)``; a copy, for the dense method and for reports only."""
    return torch.cat([t.reshape(-1) for t in x])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> Tensors:
    """Inverse of :func:`flatten`."""
    pieces = vector.split([t.numel() for t in like])
    return tuple(p.view_as(t) for p, t in zip(pieces, like, strict=True))


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the strides of another; itself where it has them."""
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)
