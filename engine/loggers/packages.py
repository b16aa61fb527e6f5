"""Packages that only one logger needs, looked for when an engine is made and imported when its run starts."""

from __future__ import annotations

from importlib.util import find_spec

from ...hypergrad.errors import ConfigError


def require(package: str, logger: str) -> None:
    """See to it that a package is installed, without importing it.

    Raises:
        ConfigError: It is not; the message says how to install it.
    """
    found = find_spec(package)
    if found is None or found.origin is None:  # a folder of that name that lies about, say one of logs, has no origin
        raise ConfigError(
            f"logger '{logger}': needs {package}; install it with: pip install 'multilevel[{package}]', or leave the "
            "logger out"
        )
