"""Moving a batch to a device, whatever its shape."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a batch, however nested, and keep the containers' types.

    Tensors, tuples, named tuples, lists, mappings (``UserDict`` too, hence Hugging Face encodings) and anything else
    with a ``to`` method are moved; other values are returned as they are.
    """
    if isinstance(batch, Tensor):
        if batch.device == device:
            return batch
        # Only towards a device: a copy to the host that nobody waits for is read before it is there.
        return batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, (str, bytes)) or batch is None:
        return batch
    if isinstance(batch, tuple) and not hasattr(batch, "to"):  # a PackedSequence knows what must stay on the host
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, list):
        parts = [to_device(part, device) for part in batch]
        return parts if type(batch) is list else _same_list(batch, parts)
    if isinstance(batch, UserDict):
        moved = copy.copy(batch)
        moved.data = {key: to_device(value, device) for key, value in batch.data.items()}
        return moved
    if isinstance(batch, Mapping):
        items = {key: to_device(value, device) for key, value in batch.items()}
        return items if type(batch) is dict else _same_mapping(batch, items)
    to = getattr(batch, "to", None)
    return to(device) if callable(to) else batch


def _same_list(batch: list[Any], parts: list[Any]) -> list[Any]:
    moved = copy.copy(batch)
    moved[:] = parts
    return moved


def _same_mapping(batch: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        moved = copy.copy(batch)
        for key, value in items.items():
            moved[key] = value  # type: ignore[index]
    except TypeError:  # a read-only view, for example
        return items
    return moved
