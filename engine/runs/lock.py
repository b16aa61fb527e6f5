"""One process at a time in a run folder: two would write over each other's checkpoints."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...hypergrad.errors import ConfigError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder that exists while the block runs. However the process ends, the system lets go of it.

    Raises:
        ConfigError: Another process holds it.
    """
    if fcntl is None:
        yield
        return
    # lockf, not flock: a lock of this process alone, which the workers of a DataLoader do not keep when it is killed.
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(f"{folder}: {holder} is at work in it; wait for it, or stop it") from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
