"""The base of every settings model: strict, frozen, and refusing with this library's own :class:`ConfigError`.

pydantic does the checking; a user never meets its exceptions. A :class:`SettingsError` keeps each fault with the path
of the key it concerns, so that whoever holds the file can put its name and line in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from ..hypergrad.errors import ConfigError, choices
from .field_docs import describe_properties

Path = tuple[str | int, ...]

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
}
"""What a value should have been, by pydantic's name of the fault; other faults keep pydantic's sentence."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the path of its key, and what to say about it."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class SettingsError(ConfigError):
    """Settings were refused. ``faults`` has one entry for everything that is wrong."""

    def __init__(self, title: str, *faults: Fault) -> None:
        self.title, self.faults = title, faults
        lines = [str(fault) for fault in faults]
        super().__init__(f"{title}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{title}:", *lines]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.title, *self.faults)


class Settings(BaseModel):
    """Base of the settings models: unknown keys, loose conversions and later changes are refused.

    Raises:
        ConfigError: A setting is unknown, missing, or not of the kind expected.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, json_schema_extra=describe_properties
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise SettingsError(type(self).__name__, *_faults(type(self), error)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings replaced. Unlike pydantic's, the result is checked like a new one."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{_alias(type(self), name): value for name, value in {**given, **(update or {})}.items()})


def dotted(path: Path) -> str:
    """``("problems", "policy", "config")`` as ``problems.policy.config``."""
    return ".".join(str(part) for part in path)


def refuse(message: str, *path: str | int) -> SettingsError:
    """An error about one key, for validators and builders to raise."""
    return SettingsError("settings", Fault(path, message))


@contextmanager
def under(*path: str | int) -> Iterator[None]:
    """Put ``path`` in front of the key paths of a refusal raised inside; a bare :class:`ConfigError` gets this path."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(
            error.title, *(Fault((*path, *f.path), f.message) for f in error.faults)
        ) from error.__cause__
    except ConfigError as error:
        raise SettingsError("settings", Fault(path, str(error))) from error


def keys(model: type[BaseModel]) -> list[str]:
    """The keys a model accepts, as they are written in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _alias(model: type[BaseModel], name: str) -> str:
    field = model.model_fields.get(name)
    return field.alias if field is not None and field.alias else name


def _faults(model: type[BaseModel], error: ValidationError) -> Iterator[Fault]:
    for detail in error.errors(include_url=False):
        path, context = detail["loc"], detail.get("ctx", {})
        inner = context.get("error")
        if isinstance(inner, SettingsError):
            yield from (Fault((*path, *fault.path), fault.message) for fault in inner.faults)
        elif isinstance(inner, Exception):
            yield Fault(path, str(inner))
        elif detail["type"] == "extra_forbidden":
            # Nested settings refuse for themselves, so an unknown key reported here is always one of this model.
            yield Fault(path, f"unknown key{choices(str(path[-1]), keys(model))}")
        elif detail["type"] == "missing":
            yield Fault(path, "this key is required, but missing")
        else:
            yield Fault(path, f"expected {_expected(detail, context)}, got {detail['input']!r}")


def _expected(detail: Any, context: Mapping[str, Any]) -> str:
    known = EXPECTED.get(detail["type"])
    sentence: str = detail["msg"]
    return known.format(**context) if known else sentence.removeprefix("Input should be ")
