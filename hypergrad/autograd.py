"""The gradient of a scalar, without the checks that ``torch.autograd.grad`` makes of arguments it does not know.

They take about 40 us a call, a third of the time of a one-parameter training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .tracing import is_tracing

try:
    from torch.autograd.graph import _engine_run_backward
except ImportError:  # private to torch: where it is gone, the public function does the same
    _engine_run_backward = None  # type: ignore[assignment]

_ones: dict[Any, Tensor] = {}


def scalar_gradients(value: Tensor, wrt: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """As ``torch.autograd.grad(value, wrt, allow_unused=True)``: the graph is freed.

    Args:
        value: A 0-dimensional tensor with a graph.
        wrt: Tensors that require gradients, at least one.
    """
    if _engine_run_backward is None or type(value) is not Tensor or value.dim() or is_tracing():
        return torch.autograd.grad(value, tuple(wrt), allow_unused=True)
    key = value.dtype, value.device
    one = _ones.get(key)
    if one is None:
        one = _ones[key] = torch.ones((), dtype=value.dtype, device=value.device)
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        (value,), (one,), False, False, tuple(wrt), allow_unreachable=True, accumulate_grad=False
    )
    return found
