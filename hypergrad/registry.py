"""Names for methods, for YAML and ``Config(type="name")``; Python code may pass the objects themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from .errors import ConfigError, choices
from .method import Method

M = TypeVar("M", bound=type[Method])

ENTRY_POINTS = "multilevel.methods"
_methods: dict[str, type[Method]] = {}
_plugins_loaded = False


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method available under ``name``.

    Args:
        name: What YAML and ``Config(type=...)`` will say. Lower case by convention.

    Raises:
        ConfigError: The name is taken by another class, or the class is not a frozen dataclass
            derived from :class:`Method`.
    """

    def decorate(cls: M) -> M:
        known = _methods.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ConfigError(f"register('{name}'): the name belongs to {known.__qualname__} already")
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise ConfigError(f"register('{name}'): expected a subclass of Method, got {cls!r}")
        parameters = getattr(cls, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen:
            raise ConfigError(
                f"register('{name}'): {cls.__qualname__} must be a frozen dataclass; "
                "put @dataclass(frozen=True) under @register(...)"
            )
        cls.name = name
        _methods[name] = cls
        return cls

    return decorate


def available() -> dict[str, type[Method]]:
    """Every registered method by name: built in, registered by the program, or found in an entry point."""
    import_module(".methods", __package__)
    _load_plugins()
    return dict(sorted(_methods.items()))


def method_class(name: str) -> type[Method]:
    """The class registered under ``name``.

    Raises:
        ConfigError: No such method; the message lists the known ones and the nearest.
    """
    if name in _methods:
        return _methods[name]
    known = available()
    if name not in known:
        raise ConfigError(f"unknown method '{name}'{choices(name, known)}")
    return known[name]


def option_names(cls: type[Method]) -> tuple[str, ...]:
    """The options of a method: the fields of its dataclass."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # register() sees to it that it is one
    return tuple(f.name for f in fields if f.init)


def build_method(name: str, **options: Any) -> Method:
    """Build the method registered under ``name`` from its options.

    Raises:
        ConfigError: Unknown method or option, or a value that the method refuses.
    """
    cls = method_class(name)
    known = option_names(cls)
    for key in options:
        if key not in known:
            raise ConfigError(f"method '{name}' has no option '{key}'{choices(key, known, 'options')}")
    return cls(**options)


def _load_plugins() -> None:
    global _plugins_loaded
    if not _plugins_loaded:
        _plugins_loaded = True
        for entry in entry_points(group=ENTRY_POINTS):
            entry.load()
