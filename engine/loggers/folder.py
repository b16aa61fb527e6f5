"""Finding out that a folder cannot be written before a library does, in its own way or in a thread of its own."""

from __future__ import annotations

import os
from pathlib import Path


def ready(folder: Path) -> None:
    """Make a folder if there is none, write something into it, and remove that.

    Raises:
        OSError: It cannot be written, or there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(b"x" * 4096)
    finally:
        probe.unlink(missing_ok=True)
