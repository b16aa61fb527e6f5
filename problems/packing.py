"""Batches as data that ``torch.load(weights_only=True)`` reads: nothing in a checkpoint is ever executed.

A container becomes a pair of its kind and its parts. An object of a class of its own (a named tuple, a dataclass, a
tokenizer's encoding) is kept as the class's name and its attributes; it is only rebuilt where this process knows the
class already, and without calling any of its code.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import CheckpointWarning, MultilevelError, warn_once

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


class PackingError(MultilevelError, TypeError):
    """A batch holds something that cannot be written as data."""


def pack(value: Any) -> Any:
    """A batch as plain data.

    Raises:
        PackingError: It holds something else than tensors, arrays, numbers, texts, containers, and objects that are
            nothing but their attributes.
    """
    try:
        return _packed(value)
    except RecursionError:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise PackingError(f"a {name} cannot be written into a checkpoint: it holds itself") from None


def pack_or_warn(what: str, value: Any) -> Any:
    """A value as plain data; ``None``, with a warning that names it, where it cannot be written."""
    try:
        return pack(value)
    except PackingError as error:
        warn_once(f"unpackable: {what}", f"{what} is not kept in the checkpoint: {error}", CheckpointWarning)
        return None


def _packed(value: Any) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _own_storage(value)
    if kind in (dict, OrderedDict):
        return kind.__name__, [(_packed(key), _packed(item)) for key, item in value.items()]
    if kind in (list, tuple):
        return kind.__name__, [_packed(item) for item in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "named", _class_name(kind), [_packed(item) for item in value]
    if kind.__module__ == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biufc":
        return _packed_array(value)
    if _is_its_attributes(value):
        return "object", _class_name(kind), [(key, _packed(item)) for key, item in vars(value).items()]
    raise PackingError(f"a {kind.__module__}.{kind.__qualname__} in a batch cannot be written into a checkpoint")


def unpack(packed: Any) -> Any:
    """What :func:`pack` was given.

    Raises:
        PackingError: A class is not known in this process.
    """
    if not isinstance(packed, tuple):
        return packed
    kind, *rest = packed
    if kind in ("dict", "OrderedDict"):
        items = [(unpack(key), unpack(item)) for key, item in rest[0]]
        return dict(items) if kind == "dict" else OrderedDict(items)
    if kind in ("list", "tuple"):
        parts = [unpack(item) for item in rest[0]]
        return parts if kind == "list" else tuple(parts)
    if kind in ("array", "number"):
        data, dtype, shape = rest
        array = data.numpy().view(dtype).reshape(shape)
        return array if kind == "array" else array[()]
    cls = imported_class(rest[0])
    if cls is None:
        raise PackingError(f"the checkpoint holds a batch with a {rest[0]}, which this process does not know")
    if kind == "named":
        return tuple.__new__(cls, [unpack(item) for item in rest[1]])
    new = object.__new__(cls)
    new.__dict__.update({key: unpack(item) for key, item in rest[1]})
    return new


def _packed_array(value: Any) -> tuple[str, Tensor, str, tuple[int, ...]]:
    """The bytes of an array or of one of numpy's numbers: torch has not all of its dtypes."""
    import numpy as np

    array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    data = torch.from_numpy(array.reshape(-1).view(np.uint8).copy())
    return "array" if isinstance(value, np.ndarray) else "number", data, array.dtype.str, tuple(np.shape(value))


def _own_storage(tensor: Tensor) -> Tensor:
    """A batch is often a view of all the data, which would be written as a whole."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        return tensor
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() else tensor


def _is_its_attributes(value: Any) -> bool:
    cls = type(value)
    plain_new = cls.__new__ is object.__new__ or not isinstance(value, (tuple, list, dict, set, str, int, float))
    return hasattr(value, "__dict__") and plain_new and not callable(value) and _slots(cls) <= {"__dict__"}


def _slots(cls: type) -> set[str]:
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        slots = vars(base).get("__slots__", ())
        if not isinstance(slots, Mapping):
            found |= {slots} if isinstance(slots, str) else set(slots)
    return found - {"__weakref__"}


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def imported_class(name: str) -> Any:
    """The class that a module of this process has under ``module:path``; ``None`` where there is none."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None
