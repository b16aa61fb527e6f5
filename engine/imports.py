"""Which code a YAML file may name, and how a name becomes a class or a function.

A file may name ``multilevel.*``, the classes of a few torch modules, and ``file.py:Name`` from its own folder.
Everything else takes ``--allow-import PACKAGE``. Each name is followed one attribute at a time, and what it leads to
must have been defined in the package that it starts with, so that a module that another one happens to import
(``torch.optim.os``) is out of reach.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..hypergrad.errors import ConfigError, choices

OURS = "multilevel"
TORCH = ("torch.nn", "torch.optim", "torch.utils.data")
"""From torch, classes of these modules only."""
LIST_UP_TO = 20
"""Longest list of names that an error spells out."""


@dataclass(frozen=True)
class Importer:
    """Finds what a file may name.

    Args:
        folder: The folder of the YAML file.
        allowed: Further packages whose names may be used.
    """

    folder: Path
    allowed: tuple[str, ...] = ()

    def find(self, name: str) -> Callable[..., Any]:
        """The class or function called ``name``.

        Raises:
            ConfigError: The name is not one that a file may use, or leads to nothing that can be called.
        """
        if ":" in name:
            return self._beside(name)
        parts = name.split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ConfigError(f"expected a dotted name like torch.optim.SGD, or file.py:Name, got '{name}'")
        package = self._package(name)
        if any(part.startswith("_") for part in parts[1:]):
            raise ConfigError(f"'{name}' is private to {package}; a file may name public classes and functions")
        found = _follow(name)
        home = str(getattr(found, "__module__", None))
        if not within(home, package):
            raise ConfigError(f"'{name}' may not be named: it is not defined in {package}, but in {home}")
        if package in TORCH and not inspect.isclass(found):
            raise ConfigError(f"'{name}' is not a class; from torch a file may name classes of {', '.join(TORCH)}")
        return found

    def _package(self, name: str) -> str:
        """The package that ``name`` must stay in."""
        for package in (*self.allowed, OURS, *TORCH):
            if within(name, package):
                return package
        if within(name, "torch"):
            raise ConfigError(f"'{name}' may not be named in a file: from torch, only classes of {', '.join(TORCH)}")
        root = name.partition(".")[0]
        raise ConfigError(
            f"'{name}' may not be imported: a file may name {OURS}.*, classes of {', '.join(TORCH)}, and file.py:Name "
            f"beside it; allow more with --allow-import {root}"
        )

    def _beside(self, name: str) -> Callable[..., Any]:
        file, _, attribute = name.partition(":")
        path = (self.folder / file).resolve()
        if path.suffix != ".py" or not attribute.isidentifier():
            raise ConfigError(f"expected file.py:Name, got '{name}'")
        if not path.is_relative_to(self.folder.resolve()):
            raise ConfigError(f"'{file}' is outside the folder of this file, {self.folder}; move it there")
        if not path.is_file():
            beside = [p.name for p in self.folder.glob("*.py")]
            raise ConfigError(f"no file {file} in {self.folder}{choices(file, beside, 'there')}")
        module = _load(path)
        if not hasattr(module, attribute):
            raise ConfigError(f"{file} has no '{attribute}'{_nearest(attribute, module)}")
        found = _callable(name, getattr(module, attribute))
        home = str(found.__module__)
        if not any(within(home, package) for package in (module.__name__, *self.allowed, OURS, *TORCH)):
            raise ConfigError(
                f"'{name}' was only imported there, from {home}; define it in {file}, or allow more with "
                f"--allow-import {home.partition('.')[0]}"
            )
        return found


def within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or something in it."""
    return name == package or name.startswith(f"{package}.")


def _follow(name: str) -> Callable[..., Any]:
    """Import the first part of a dotted name, then take the others as submodules or attributes."""
    root, *parts = name.split(".")
    found: Any = _import(root, name)
    for part in parts:
        if isinstance(found, ModuleType):
            if not within(found.__name__, root):
                raise ConfigError(f"'{name}' leads to {found.__name__}, which is not part of {root}")
            found = _member(found, part, name)
        elif inspect.isclass(found) and hasattr(found, part):
            found = getattr(found, part)
        else:
            raise ConfigError(f"'{name}': {found!r} has no '{part}'")
    return _callable(name, found)


def _member(module: ModuleType, part: str, name: str) -> Any:
    if hasattr(module, part):
        return getattr(module, part)
    child = f"{module.__name__}.{part}"
    if hasattr(module, "__path__") and importlib.util.find_spec(child) is not None:
        return _import(child, name)
    raise ConfigError(f"'{name}': {module.__name__} has no '{part}'{_nearest(part, module)}")


def _import(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever the module's own code raises
        raise ConfigError(f"'{name}': importing {module} raised {type(error).__name__}: {error}") from error


def _load(path: Path) -> ModuleType:
    # Named by its full path: two folders may each have a `data.py`, and two components of one file share a module.
    name = f"multilevel_beside_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path.name} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the workers of a DataLoader look their module up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"importing {path.name} raised {type(error).__name__}: {error}") from error
    return module


def _nearest(name: str, module: ModuleType) -> str:
    """Did-you-mean among what a module offers, and the whole list where it is short."""
    known = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
    near = [key for key in known if key.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1)
    if not near and len(known) <= LIST_UP_TO:
        return choices(name, known)
    return f"; did you mean '{near[0]}'?" if near else ""


def _callable(name: str, found: Any) -> Callable[..., Any]:
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        raise ConfigError(f"'{name}' is a {type(found).__name__}; expected a class or a function")
    return found
