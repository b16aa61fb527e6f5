"""What an environment remembers, as data for checkpoints, and back.

Environments of gymnasium have no ``state_dict``: what they remember is in the attributes of the environment, of its
wrappers and of the objects that these hold. They are written down as they are and put into the same places of an
environment that was built in the same way. An object that has a ``state_dict`` is asked instead, and one that holds
something that is no data (the handle of a simulator, a pipe to another process) stays as it was built.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ..hypergrad.errors import CheckpointError
from ..problems.packing import PLAIN
from .environment_values import (
    LEFT_OUT,
    Unwritable,
    attributes,
    class_name,
    forget,
    generator_state,
    is_constant,
    is_generator,
    is_its_attributes,
    known_class,
    new_generator,
    own_state,
    read_value,
    remember,
    set_generator_state,
    set_own_state,
    write_value,
)

CLOCKS = {"episode_start_time", "episode_start_times", "time_queue", "closed"}
"""Of no meaning in another process: readings of its clock, and whether it is done with the environment."""
ABSENT = object()


def write(env: Any) -> tuple[Any, dict[str, str]]:
    """The state of an environment, and what could not be written.

    Returns:
        The state: what ``torch.load(weights_only=True)`` reads; and the types of the attributes that are no data, by
        where they are (``"HalfCheetahEnv.data"``).
    """
    writer = _Writer()
    return writer.write(env, "env"), writer.missing


def read(state: Any, env: Any) -> None:
    """Put a state that :func:`write` gave into an environment that was built in the same way.

    Raises:
        CheckpointError: It is another environment.
    """
    _Reader().read(state, env, "env")


class _Writer:
    """Turns objects into data; one that comes up several times is written once, and numbered."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._seen: dict[int, tuple[int, Any]] = {}
        self._covered = 0

    def write(self, value: Any, path: str) -> Any:
        """A value as data.

        Raises:
            Unwritable: It is none.
        """
        if type(value) in PLAIN:
            return value
        if is_constant(value):
            return LEFT_OUT
        if id(value) in self._seen:
            return "same", self._seen[id(value)][0]
        if isinstance(value, tuple):  # without a number: which of two equal ones it is cannot matter
            cls = class_name(type(value)) if hasattr(value, "_fields") else None
            return "tuple", cls, self._all(value, path)
        if isinstance(value, (set, frozenset)):
            return "set", type(value).__name__, self._all(value, path)
        mark = len(self._seen)
        self._seen[id(value)] = mark, value  # the value too: its address must not be used again
        try:
            return self._numbered(value, path, mark)
        except Unwritable:
            self._forget(mark)
            raise

    def _numbered(self, value: Any, path: str, number: int) -> Any:
        if is_generator(value):
            return "generator", number, type(value).__name__, self.write(generator_state(value), path)
        kind = type(value).__name__
        if kind in ("dict", "OrderedDict", "defaultdict", "Counter") and isinstance(value, dict):
            items = [(self.write(k, f"{path} (key)"), self.write(v, f"{path}[{k!r}]")) for k, v in value.items()]
            return "dict", number, kind, items
        if type(value) is list:
            return "list", number, self._all(value, path)
        if kind == "deque":
            return "deque", number, value.maxlen, self._all(value, path)
        if is_space(value):
            return self._object(value, path, number, holds_state)
        if is_environment(value):
            return self._environment(value, number)
        own = own_state(value)
        if own is not None:
            return "object", number, class_name(type(value)), {}, None, self.write(own(), path)
        if is_its_attributes(value):
            return self._object(value, path, number)
        return write_value(value, path, number)

    def _all(self, values: Any, path: str) -> list[Any]:
        return [self.write(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def _object(
        self, value: Any, path: str, number: int, wanted: Callable[[Any], bool] = lambda part: True
    ) -> tuple[Any, ...]:
        """An object by its attributes, or only by some of them."""
        kept, left = {}, []
        for name, part in attributes(value).items():
            if wanted(part) and not is_constant(part):
                kept[name] = self.write(part, f"{path}.{name}")
            else:
                left.append(name)
        return "object", number, class_name(type(value)), kept, left, None

    def _environment(self, env: Any, number: int) -> Any:
        """An environment or a wrapper. Its random numbers, its spaces' and what it wraps are kept in any case."""
        path = type(env).__name__
        own = own_state(env)
        self._covered += own is not None
        _, _, cls, inner, *_ = self._object(env, path, number, holds_state)
        self._covered -= own is not None
        mark = len(self._seen)
        try:
            if own is not None:
                return "object", number, cls, inner, None, self.write(own(), path)
            others = {n: part for n, part in attributes(env).items() if n not in inner and not _is_given(n, part)}
            kept = {name: self.write(part, f"{path}.{name}") for name, part in others.items()}
        except Unwritable as error:
            self._forget(mark)
            if not self._covered:
                self.missing[error.path] = error.kind
            return "object", number, cls, inner, None, None
        left = [name for name in attributes(env) if name not in inner and name not in kept]
        return "object", number, cls, {**inner, **kept}, left, None

    def _forget(self, mark: int) -> None:
        for key in list(self._seen)[mark:]:
            del self._seen[key]
