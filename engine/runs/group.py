"""Processes that a launcher starts together (torchrun): for a command of this library, one is too many already."""

from __future__ import annotations

import os

from ...hypergrad.errors import ConfigError

COUNT = "WORLD_SIZE"
"""What launchers call the variable that says how many processes they started."""


def refuse_group() -> None:
    """Refuse to be one of several processes: each would start the same run, in the same folder.

    Raises:
        ConfigError: A launcher has started several.
    """
    count = os.environ.get(COUNT, "").strip()
    if count.isdecimal() and int(count) > 1:
        raise ConfigError(
            f"{COUNT}={count}: expected one process, and a launcher (torchrun?) started {count}; a run is one process. "
            "Start the command by itself: several seeds with multilevel run --seeds N -j J, several settings with "
            f"multilevel sweep -j J. If the variable means nothing here: env -u {COUNT} multilevel ..."
        )
