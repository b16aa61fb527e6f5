"""What an environment remembers, as data for checkpoints, and back.

Environments of gymnasium have no ``state_dict``: what they remember is in the attributes of the environment, of its
wrappers and of the objects that these hold. They are written down as they are, and put into the same places of an
environment that was built in the same way. An object that has a ``state_dict`` is asked instead, and one that holds
something that is no data (the handle of a simulator, a pipe to another process) stays as it was built.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from ..hypergrad.errors import CheckpointError
from ..problems.packing import PLAIN
from .environment_values import (
    Unwritable,
    attributes,
    class_name,
    generator_state,
    gymnasium,
    holds_state,
    is_constant,
    is_environment,
    is_its_attributes,
    is_space,
    known_class,
    own_state,
    read_value,
    restored_generator,
    set_attribute,
    write_value,
)

DICTS = {cls.__name__: cls for cls in (dict, OrderedDict, defaultdict, Counter)}
BUILT = {"spec", "metadata", "_metadata", "_cached_spec", "_saved_kwargs", "env_fns"}
"""Attributes of environments that say how they are built."""
CLOCKS = {"episode_start_time", "episode_start_times", "time_queue"}
"""Attributes of ``RecordEpisodeStatistics`` with times of a clock that is another one in another process."""
LEFT_OUT = ("left out",)
ABSENT = object()


def write(env: Any) -> tuple[Any, dict[str, str]]:
    """The state of an environment, and what could not be written.

    Returns:
        The state, as ``torch.load(weights_only=True)`` reads it; and what is no data: the names of types, by where
        they are (``{"HalfCheetahEnv.data": "MjData"}``).
    """
    writer = _Writer()
    return writer.write(env, type(env).__name__), writer.missing


def read(state: Any, env: Any) -> None:
    """Put a state that :func:`write` gave into an environment that was built in the same way.

    Raises:
        CheckpointError: It is another environment.
    """
    _Reader().read(state, env)


class _Writer:
    """Turns objects into data. One that comes up several times is written once, and numbered.

    Attributes:
        missing: What is no data.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._seen: dict[int, tuple[int, Any]] = {}
        self._asked = 0

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
        if type(value) is tuple and all(type(part) in PLAIN for part in value):
            return "plain", value
        if type(value) is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
            return "tuple", class_name(type(value)), self._parts(value, path)
        mark = len(self._seen)
        self._seen[id(value)] = mark, value  # the value too: another one must not get its address
        try:
            return self._numbered(value, path, mark)
        except Unwritable:
            self._forget(mark)
            raise

    def _numbered(self, value: Any, path: str, number: int) -> tuple[Any, ...]:
        if type(value) is list:
            return "list", number, self._parts(value, path)
        if type(value) is deque:
            return "deque", number, value.maxlen, self._parts(value, path)
        if type(value) in (set, frozenset):
            return "set", number, type(value).__name__, [self._kept(part, path) for part in value]
        if type(value) in DICTS.values():
            items = [(self._kept(key, path), self.write(part, f"{path}[{key!r}]")) for key, part in value.items()]
            return "dict", number, type(value).__name__, items
        generator = generator_state(value)
        if generator is not None:
            return "generator", number, generator[0], self.write(generator[1], path)
        single = write_value(value, lambda part: self.write(part, path))
        return ("value", number, *single) if single is not None else self._object(value, path, number)

    def _object(self, value: Any, path: str, number: int) -> tuple[Any, ...]:
        """An object: its class, its attributes, those that are left alone (``None``: all others), its own state."""
        cls, own = class_name(type(value)), own_state(value)
        if is_environment(value):
            return "object", number, cls, *self._environment(value, number, own)
        if is_space(value):
            kept = {n: self.write(part, path) for n, part in attributes(value).items() if holds_state(part)}
            return "object", number, cls, kept, None, None
        if own is not None:
            return "object", number, cls, {}, None, self.write(own[0](), path)
        if not is_its_attributes(value):
            raise Unwritable(path, value)
        return "object", number, cls, *self._attributes(value, path), None

    def _environment(self, env: Any, number: int, own: Any) -> tuple[Any, ...]:
        """An environment or a wrapper. What it wraps, its random numbers and its spaces' are kept in any case."""
        self._asked += own is not None
        path = type(env).__name__
        inner = {n: self.write(part, f"{path}.{n}") for n, part in attributes(env).items() if holds_state(part)}
        self._asked -= own is not None
        mark = len(self._seen)
        try:
            if own is not None:
                return inner, None, self.write(own[0](), path)
            kept, left = self._attributes(env, path, {*inner, *_built(env)})
            return {**inner, **kept}, left, None
        except Unwritable as error:
            self._forget(mark)
            if not self._asked:  # else what is around it answers for it
                self.missing[error.path] = error.kind
            return inner, None, None

    def _attributes(self, value: Any, path: str, done: set[str] | None = None) -> tuple[dict[str, Any], list[str]]:
        found = {name: part for name, part in attributes(value).items() if name not in (done or ())}
        kept = {name: self.write(part, f"{path}.{name}") for name, part in found.items() if not is_constant(part)}
        return kept, sorted({*found, *(done or ())} - kept.keys())

    def _parts(self, values: Any, path: str) -> list[Any]:
        return [self.write(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def _kept(self, value: Any, path: str) -> Any:
        """Of a set, or a key: nothing there could stand in for it."""
        if is_constant(value):
            raise Unwritable(path, value)
        return self.write(value, path)

    def _forget(self, mark: int) -> None:
        for key in list(self._seen)[mark:]:
            del self._seen[key]


class _Reader:
    """Puts data back into the objects that are there; makes those that are not."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def read(self, packed: Any, current: Any = ABSENT) -> Any:
        """The value that was written.

        Args:
            packed: The data.
            current: What is in its place.
        """
        if not isinstance(packed, tuple):
            return packed
        kind, *rest = packed
        if kind == "plain":
            return rest[0]
        if kind == "left out":
            if current is ABSENT:
                raise CheckpointError("the environment is not built like the one that the checkpoint is of")
            return current
        if kind == "same":
            return self._made[rest[0]]
        if kind == "tuple":
            cls = tuple if rest[0] == "builtins:tuple" else known_class(rest[0])
            return tuple.__new__(cls, self._parts(rest[1], current))
        number, *rest = rest
        if kind == "object":
            return self._object(number, *rest, current=current)
        return self._read(kind, number, rest, current)

    def _read(self, kind: str, number: int, rest: list[Any], current: Any) -> Any:
        made: Any
        if kind in ("list", "deque"):
            made = self._made[number] = [] if kind == "list" else deque(maxlen=rest[0])
            made.extend(self._parts(rest[-1], current))
        elif kind == "dict":
            made = self._made[number] = copy.copy(current) if type(current).__name__ == rest[0] else DICTS[rest[0]]()
            made.clear()
            before = current if isinstance(current, dict) else {}
            items = [(self.read(key), part) for key, part in rest[1]]
            made.update({key: self.read(part, before.get(key, ABSENT)) for key, part in items})
        elif kind == "set":
            made = self._made[number] = (set if rest[0] == "set" else frozenset)(self.read(part) for part in rest[1])
        elif kind == "generator":
            made = self._made[number] = restored_generator(rest[0], self.read(rest[1]), current)
        else:
            made = self._made[number] = read_value(rest[0], rest[1:], self.read)
        return made

    def _object(
        self, number: int, cls: str, kept: dict[str, Any], left: list[str] | None, own: Any, *, current: Any
    ) -> Any:
        if class_name(type(current)) != cls:
            if left is None or left:
                there = "nothing" if current is ABSENT else f"a {class_name(type(current))}"
                raise CheckpointError(f"the checkpoint has the state of a {cls} where there is {there}")
            found = known_class(cls)
            current = object.__new__(found)
        self._made[number] = current
        before = attributes(current)
        if left is not None:
            for name in before.keys() - kept.keys() - set(left):  # it came up later
                delattr(current, name)
        for name, part in kept.items():
            set_attribute(current, name, self.read(part, before.get(name, ABSENT)))
        if own is not None:
            own_state(current)[1](self.read(own))
        return current

    def _parts(self, packed: list[Any], current: Any) -> list[Any]:
        there = list(current) if isinstance(current, (tuple, list, deque)) else []
        there += [ABSENT] * (len(packed) - len(there))
        return [self.read(part, before) for part, before in zip(packed, there, strict=False)]


def _built(env: Any) -> set[str]:
    clocks = CLOCKS if type(env).__name__ == "RecordEpisodeStatistics" else set()
    return {*BUILT, *clocks, *({"closed"} if isinstance(env, gymnasium().vector.VectorEnv) else ())} & attributes(
        env
    ).keys()
