"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader, or a crash at any moment, finds the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def copy_file(source: Path, copy: Path) -> None:
    """Copy a file so that a crash at any moment leaves no half of it, which would be taken for another one."""
    beside = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, beside)
        beside.replace(copy)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries last beyond a power cut; where a system cannot open folders, it sees to that itself."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:  # a file system that cannot
        pass
    finally:
        os.close(number)
