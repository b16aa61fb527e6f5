"""What is not the same in two experiments, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ABSENT = object()


@dataclass(frozen=True)
class Difference:
    """A setting of two experiments that is not the same.

    Attributes:
        key: Its dotted key.
        there: Its value in one; ``ABSENT`` where that does not have it.
        here: Its value in the other.
    """

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.there)} there, {shown(self.here)} here"


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[Difference]:
    """The settings that differ, in the order of their appearance.

    Args:
        there: One experiment, as plain data.
        here: The other.
    """
    one, other = dict(_flat(there)), dict(_flat(here))
    pairs = ((key, one.get(key, ABSENT), other.get(key, ABSENT)) for key in dict.fromkeys([*one, *other]))
    return [Difference(key, a, b) for key, a, b in pairs if a != b]


def shown(value: Any) -> str:
    """A value for people."""
    return "nothing" if value is ABSENT else repr(value)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path, value
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))
