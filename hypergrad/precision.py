"""The precision that linear solvers compute in: that of the vector, but never less than float32.

A residual that is updated in bfloat16 has three digits and stops meaning anything after a few iterations. The products
with H are still taken in the precision of the parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from .tensors import Tensors, add

Product: TypeAlias = Callable[[Tensors], Tensors]
"""Multiplies a matrix by a vector. What it returns may be the very tensors it was given (H = I): never write to it."""


def working(x: Sequence[torch.Tensor]) -> Tensors:
    """``x`` with one dtype for all its tensors; those that have it already are not copied."""
    dtypes = {t.dtype for t in x}
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    return tuple(x) if dtypes == {dtype} else tuple(t.to(dtype) for t in x)


def like(x: Sequence[torch.Tensor], model: Sequence[torch.Tensor]) -> Tensors:
    """``x`` with the dtypes and devices of ``model``."""
    return tuple([t.to(m) for t, m in zip(x, model, strict=True)])


def working_product(product: Product, model: Sequence[torch.Tensor], damping: float = 0.0) -> Product:
    """(A + damping I) on vectors of the working precision, where A multiplies vectors like ``model``."""

    def multiply(x: Tensors) -> Tensors:
        image = working(product(like(x, model)))
        return add(image, x, damping) if damping else image

    return multiply


def resolution(x: Sequence[torch.Tensor]) -> float:
    """The relative spacing of numbers of the dtype of ``x``."""
    return torch.finfo(x[0].dtype).eps


def rounding(x: Sequence[torch.Tensor]) -> float:
    """The share of a matrix's size below which a coefficient of its Krylov space is taken for zero."""
    return 100 * resolution(x)
