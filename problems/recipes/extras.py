"""Packages that only recipes and examples need, imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...hypergrad.errors import ConfigError

DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Where pip knows a package by another name."""


def extra(module: str, purpose: str) -> Any:
    """Import a module of a package that is not a base dependency.

    Args:
        module: Its dotted name.
        purpose: What it is for, in front of the error message: ``"the digits"``.

    Raises:
        ConfigError: The package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{purpose}: needs {DISTRIBUTIONS.get(package, package)}; install it with: "
            "pip install 'multilevel[examples]'"
        ) from error
