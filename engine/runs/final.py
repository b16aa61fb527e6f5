"""The final metrics of a run, as they are in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

from ...hypergrad.errors import ConfigError


def read_report(path: Path) -> dict[str, float]:
    """Read a ``report.json``.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return {name: float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected the final metrics of a run, found a damaged file ({error}); remove it, and let the run "
            f"write it again: multilevel resume {quote(str(path.parent))}"
        ) from error
