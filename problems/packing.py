"""Batches and states as data that ``torch.load(weights_only=True)`` reads: no code in a checkpoint is ever executed.

A container becomes a pair of its kind and its parts. An object of a class of its own (a named tuple, a dataclass, a
tokenizer's encoding) is kept as the class's name and its attributes; it is only rebuilt where this process knows the
class already, and without calling any of its code.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from enum import Enum, EnumMeta
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import CheckpointWarning, MultilevelError, warn_once

PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device)
SEQUENCES: dict[str, Any] = {kind.__name__: kind for kind in (list, tuple, set, frozenset, torch.Size)}
MAPPINGS: dict[str, Any] = {kind.__name__: kind for kind in (dict, OrderedDict, Counter)}
FACTORIES: dict[str, Callable[[], Any]] = {kind.__name__: kind for kind in (bool, int, float, str, list, dict, set)}
"""What a ``defaultdict`` may make its values with: anything else would be code in a checkpoint."""


class PackingError(MultilevelError, TypeError):
    """A batch or a state holds something that cannot be written as data."""


def pack(value: Any) -> Any:
    """A batch or a state as plain data.

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
        _warn_left_out(what, error)
        return None


def pack_parts(values: Mapping[Any, Any], what: Callable[[Any], str]) -> Any:
    """A mapping as plain data, without the entries that cannot be written.

    Args:
        values: The mapping.
        what: The name of an entry, by its key, for the warning that it is left out.

    Returns:
        What :func:`unpack` makes a mapping of the same kind of; a ``dict`` where something was left out.
    """
    try:
        return pack(values)
    except PackingError:
        kept = []
        for key, value in values.items():
            try:
                kept.append((pack(key), pack(value)))
            except PackingError as error:
                _warn_left_out(what(key), error)
        return "dict", kept


def _warn_left_out(what: str, error: PackingError) -> None:
    warn_once(f"unpackable: {what}: {error}", f"{what} is not kept in the checkpoint: {error}", CheckpointWarning)


def _packed(value: Any) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _own_storage(value)
    if kind in MAPPINGS.values():
        return kind.__name__, _packed_items(value)
    if kind in SEQUENCES.values():
        return kind.__name__, [_packed(item) for item in value]
    if kind is deque:
        return "deque", [_packed(item) for item in value], value.maxlen
    if kind is defaultdict and (factory := _factory(value)) is not None:
        return "defaultdict", _packed_items(value), factory
    if isinstance(value, Enum) and kind.__members__.get(value._name_) is value:
        return "enum", _class_name(kind), value._name_
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "named", _class_name(kind), [_packed(item) for item in value]
    if kind.__module__ == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biufc":
        return _packed_array(value)
    if _is_its_attributes(value):
        attributes = _packed_items(vars(value))
        return "object", _class_name(kind), attributes
    of = f" of dtype {value.dtype}" if kind.__module__ == "numpy" and hasattr(value, "dtype") else ""
    raise PackingError(f"a {kind.__module__}.{kind.__qualname__}{of} cannot be written into a checkpoint")


def unpack(packed: Any) -> Any:
    """What :func:`pack` was given.

    Raises:
        PackingError: A class is not known in this process.
    """
    if not isinstance(packed, tuple):
        return packed
    kind, *rest = packed
    if kind in MAPPINGS:
        return MAPPINGS[kind](_unpacked_items(rest[0]))
    if kind in SEQUENCES:
        return SEQUENCES[kind]([unpack(item) for item in rest[0]])
    if kind == "deque":
        return deque([unpack(item) for item in rest[0]], rest[1])
    if kind == "defaultdict":
        return defaultdict(FACTORIES.get(rest[1]), _unpacked_items(rest[0]))
    if kind in ("array", "number"):
        data, dtype, shape = rest
        array = data.numpy().view(dtype).reshape(shape)
        return array if kind == "array" else array[()]
    cls = imported_class(rest[0])
    if cls is None:
        raise PackingError(f"the checkpoint holds a {rest[0]}, which this process does not know; import it first")
    if kind == "enum":
        if rest[1] not in cls.__members__:
            raise PackingError(f"the checkpoint holds {rest[0]}.{rest[1]}, which is no longer among its members")
        return EnumMeta.__getitem__(cls, rest[1])
    if kind == "named":
        return tuple.__new__(cls, [unpack(item) for item in rest[1]])
    new = object.__new__(cls)
    new.__dict__.update({key: unpack(item) for key, item in rest[1]})
    return new


def unpack_or_warn(what: str, packed: Any) -> Any:
    """What :func:`pack` was given; ``None``, with a warning that names it, where a class is not known."""
    try:
        return unpack(packed)
    except PackingError as error:
        warn_once(f"unreadable: {what}", f"{what} is left out: {error}", CheckpointWarning)
        return None


def _packed_items(value: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return [(_packed(key), _packed(item)) for key, item in value.items()]


def _unpacked_items(packed: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {unpack(key): unpack(item) for key, item in packed}


def _factory(value: defaultdict[Any, Any]) -> str | None:
    """The name of what makes its values, empty where nothing does; ``None`` where it is not one of the known ones."""
    if value.default_factory is None:
        return ""
    return next((name for name, factory in FACTORIES.items() if factory is value.default_factory), None)


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
    # A random.Random, an exception, an open file have attributes too, but are made of more.
    plain_new = cls.__new__ is object.__new__ or isinstance(cls.__new__, FunctionType)
    contained = isinstance(value, (tuple, list, dict, set, str, int, float, Enum))
    return hasattr(value, "__dict__") and plain_new and not contained and not callable(value) and not _has_slots(cls)


def _has_slots(cls: type) -> bool:
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        slots = vars(base).get("__slots__", ())
        if not isinstance(slots, Mapping):
            found |= {slots} if isinstance(slots, str) else set(slots)
    return not found <= {"__dict__", "__weakref__"}


def _class_name(cls: type) -> str:
    if "<locals>" in cls.__qualname__:
        raise PackingError(
            f"a {cls.__module__}.{cls.__qualname__} cannot be written into a checkpoint: its class is made inside a "
            "function, where nothing can find it again"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def imported_class(name: str) -> Any:
    """The class that a module of this process has under ``module:path``; ``None`` where there is none."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None
