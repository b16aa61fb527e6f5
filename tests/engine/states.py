"""Comparing states: nested containers of tensors, numbers and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states are not the same to the bit, and how; empty if they are.

    Args:
        a: One state.
        b: The other.
        path: Of keys, in front of those that are named.
    """
    if type(a) is not type(b) and not (_is_number(a) and _is_number(b)):
        return [f"{path}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, Tensor):
        return [] if _same_tensor(a, b) else [f"{path}: tensors {_shown(a)} and {_shown(b)}"]
    if isinstance(a, Mapping):
        found = [f"{path}.{key}: only in {'one' if key in a else 'the other'}" for key in a.keys() ^ b.keys()]
        return [*found, *(d for key in a if key in b for d in differences(a[key], b[key], f"{path}.{key}"))]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: lengths {len(a)} and {len(b)}"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}[{i}]")]
    return [] if a == b or (a != a and b != b) else [f"{path}: {a!r} and {b!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device:
        return False
    return torch.equal(*(tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in (a, b)))


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"
