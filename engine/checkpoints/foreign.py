"""Where in a state something is that a checkpoint cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor, torch.nn.Parameter)
CONTAINERS = (dict, list, tuple)


def foreign(state: Any, holds: Callable[[Any], bool]) -> str | None:
    """The first thing that a checkpoint cannot hold, and where it is: ``a pathlib.PosixPath, at ['extra']['file']``.

    Args:
        state: What could not be written.
        holds: Whether a checkpoint holds a value. It is asked of those values only of which that is not certain: a
            state may be as large as memory.
    """
    try:
        return _first(state, "", holds)
    except RecursionError:  # a container that holds itself
        return None


def _first(value: Any, place: str, holds: Callable[[Any], bool]) -> str | None:
    kind = type(value)
    if kind in PLAIN:
        return None
    for key, item in _items(value):
        found = _first(key, f"{place}, among its keys", holds) or _first(item, f"{place}[{key!r}]", holds)
        if found is not None:
            return found
    if kind in CONTAINERS or holds(value):
        return None
    return f"a {kind.__module__}.{kind.__qualname__}, at {place}"


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (list, tuple)) else []
