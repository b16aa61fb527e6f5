"""The three spellings of a method: its name, a mapping of its name and options, or the object itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ..hypergrad.errors import ConfigError, choices
from ..hypergrad.method import Method
from ..hypergrad.registry import available, build_method
from .field_docs import argument_docs
from .validation import refuse

JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}


def method_from(spelling: str | Mapping[str, Any] | Method, key: str = "type") -> Method:
    """Build the method behind one of its three spellings.

    Args:
        spelling: The name, the mapping or the object.
        key: The setting that a refusal is about.

    Raises:
        ConfigError: Unknown method or option, or a value that the method refuses.
    """
    if isinstance(spelling, Method):
        return spelling
    options = {"name": spelling} if isinstance(spelling, str) else dict(spelling)
    try:
        return build_method(options.pop("name"), **options)
    except (ConfigError, TypeError) as error:  # TypeError: a method of the user's own without its required option
        raise refuse(str(error), key) from error


def method_mapping(method: Method) -> dict[str, Any]:
    """The mapping that :func:`method_from` turns back into ``method``."""
    options = {field.name: getattr(method, field.name) for field in _options(type(method))}
    inner = {key: method_mapping(value) for key, value in options.items() if isinstance(value, Method)}
    return {"name": method.name, **options, **inner}


def _checked_spelling(value: Any) -> Any:
    if isinstance(value, (str, Method)):
        return value
    if isinstance(value, type) and issubclass(value, Method):
        raise ConfigError(f"expected a method object, got its class; write {value.__name__}()")
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected a method's name, a mapping with `name`, or a method object, got {value!r}")
    if not isinstance(value.get("name"), str):
        raise ConfigError(f"expected a mapping with the method's `name`, got {dict(value)!r}{choices('', available())}")
    return dict(value)


def _options(cls: type[Method]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]


def _json_schema(name: str, cls: type[Method]) -> dict[str, Any]:
    properties: dict[str, Any] = {"name": {"const": name}}
    docs = argument_docs(cls)
    for field in _options(cls):
        kind: Any = JSON_TYPES.get(str(getattr(field.type, "__name__", field.type)))
        option = {"type": kind, "default": field.default, "description": docs.get(field.name)}
        if isinstance(field.default, Method):  # a method inside a method is spelt as methods are
            option.update({"type": ["string", "object"], "default": field.default.name})
        properties[field.name] = {k: v for k, v in option.items() if isinstance(v, (int, float, str, list))}
    return {
        "type": "object",
        "description": (cls.__doc__ or name).strip().splitlines()[0],
        "properties": properties,
        "required": ["name"],
        "additionalProperties": False,
    }


class _Spelling:
    """Tells pydantic what a spelling looks like; whether it names a method is found out when the method is built."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_checked_spelling)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # Asked for late, so that methods registered after this import are in it.
        known = available()
        return {"anyOf": [{"enum": list(known)}, *(_json_schema(name, cls) for name, cls in known.items())]}


MethodChoice = Annotated[str | Mapping[str, Any] | Method, _Spelling()]
