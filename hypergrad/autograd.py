"""Backward passes without the checks that ``torch.autograd.grad`` makes of arguments it does not know.

They take about 40 us a call, a third of the time of a one-parameter training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .tracing import is_tracing

try:
    from torch.autograd.graph import _engine_run_backward
except ImportError:  # private to torch: where it is gone, the public function does the same
    _engine_run_backward = None  # type: ignore[assignment]

_ones: dict[Any, Tensor] = {}


def scalar_gradients(value: Tensor, wrt: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor | None, ...]:
    """As ``torch.autograd.grad(value, wrt, create_graph=create_graph, allow_unused=True)``.

    Args:
        value: A 0-dimensional tensor with a graph, which is freed unless the result gets one.
        wrt: Tensors that require gradients, at least one.
        create_graph: Let the result be differentiated again.
    """
    if _engine_run_backward is None or type(value) is not Tensor or value.dim() or is_tracing():
        return torch.autograd.grad(value, tuple(wrt), create_graph=create_graph, allow_unused=True)
    key = value.dtype, value.device
    one = _ones.get(key)
    if one is None:
        one = _ones[key] = torch.ones((), dtype=value.dtype, device=value.device)
    return _backward((value,), (one,), wrt, create_graph, create_graph)


def vector_products(
    outputs: Sequence[Tensor | GradientEdge],
    wrt: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    retain_graph: bool,
    create_graph: bool,
) -> tuple[Tensor | None, ...]:
    """As ``torch.autograd.grad(outputs, wrt, vectors, allow_unused=True)``.

    Args:
        outputs: Tensors with a graph, or where in a graph they were computed.
        wrt: Tensors that require gradients, at least one.
        vectors: One per output, of its shape.
        retain_graph: Keep the graph of the outputs.
        create_graph: Let the result be differentiated again.
    """
    usual = all([_are_alike(output, vector) for output, vector in zip(outputs, vectors, strict=True)])
    if _engine_run_backward is None or not usual:
        return torch.autograd.grad(
            tuple(outputs),  # type: ignore[arg-type]  # a mixture is as good
            tuple(wrt),
            tuple(vectors),
            retain_graph=retain_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
    return _backward(tuple(outputs), tuple(vectors), wrt, retain_graph, create_graph)


def _are_alike(output: Tensor | GradientEdge, vector: Tensor) -> bool:
    return isinstance(output, GradientEdge) or (type(output) is Tensor and output.shape == vector.shape)


def _backward(
    outputs: tuple[Tensor | GradientEdge, ...],
    vectors: tuple[Tensor, ...],
    wrt: Sequence[Tensor],
    retain_graph: bool,
    create_graph: bool,
) -> tuple[Tensor | None, ...]:
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        outputs, vectors, retain_graph, create_graph, tuple(wrt), allow_unreachable=True, accumulate_grad=False
    )
    return found
