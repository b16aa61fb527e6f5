"""``problems.classifier.optimizer.lr=0.05``: changing single values of an experiment from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..hypergrad.errors import ConfigError, choices
from .schema import Experiment
from .validation import Path, dotted, keys
from .yaml_text import parse


@dataclass(frozen=True)
class Override:
    """One value that replaces or adds to those of the file."""

    text: str
    path: Path
    value: Any

    def __str__(self) -> str:
        return f"override '{self.text}'"

    def covers(self, path: Path) -> bool:
        """Whether a complaint about the key at ``path`` is a complaint about this override."""
        return path[: len(self.path)] == self.path

    def passes(self, path: Path) -> bool:
        """Whether the override's own key is inside the one at ``path``."""
        return self.path[: len(path)] == path


def parse_override(text: str) -> Override:
    """Read ``a.b.c=value``, the value as YAML.

    Raises:
        ConfigError: No ``=``, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override '{text}': expected key.path=value, as in problems.classifier.optimizer.lr=0.05")
    return Override(text, tuple(int(p) if p.isdecimal() else p for p in parts), parse(value, f"override '{text}'")[0])


def apply_overrides(raw: dict[str, Any], overrides: Sequence[Override]) -> None:
    """Write the overrides into the data of a file, in order.

    A key that is not in the file is added, since most have a default; what may not be there is found by the validation
    that follows. Only the names that a file must declare itself are checked here.

    Raises:
        ConfigError: The path starts at no section, names no problem of the file, or goes through a single value.
    """
    for override in overrides:
        _check_start(raw, override)
        inner: Any = raw
        for depth, part in enumerate(override.path[:-1]):
            inner = _enter(inner, part, override, depth)
        _put(inner, override)


def _check_start(raw: dict[str, Any], override: Override) -> None:
    section, *rest = (str(part) for part in override.path)
    sections = keys(Experiment)
    if section not in sections:
        raise ConfigError(f"{override}: no section is named '{section}'{choices(section, sections)}")
    problems = raw.get("problems")
    if section == "problems" and rest and isinstance(problems, dict) and rest[0] not in problems:
        raise ConfigError(f"{override}: no problem is named '{rest[0]}'{choices(rest[0], problems, 'problems')}")


def _enter(inner: Any, part: str | int, override: Override, depth: int) -> Any:
    if isinstance(inner, list):
        return inner[_index(inner, part, override)]
    if isinstance(inner, dict):
        key = _key(inner, part)
        if inner.get(key) is None:
            inner[key] = {}
        return inner[key]
    raise ConfigError(_not_inside(inner, override, depth))


def _put(inner: Any, override: Override) -> None:
    part = override.path[-1]
    if isinstance(inner, list):
        inner[_index(inner, part, override)] = override.value
    elif isinstance(inner, dict):
        inner[_key(inner, part)] = override.value
    else:
        raise ConfigError(_not_inside(inner, override, len(override.path) - 1))


def _key(inner: dict[Any, Any], part: str | int) -> Any:
    return part if part in inner else str(part)


def _index(inner: list[Any], part: str | int, override: Override) -> int:
    if not isinstance(part, int) or part >= len(inner):
        raise ConfigError(f"{override}: '{part}' is no position in a list of {len(inner)} (they count from 0)")
    return part


def _not_inside(inner: Any, override: Override, depth: int) -> str:
    outer = dotted(override.path[:depth])
    return f"{override}: {outer} is {inner!r}, which has no keys inside; give {outer} a mapping instead"
