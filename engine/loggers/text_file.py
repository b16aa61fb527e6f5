"""Records as lines of a file that survives kills and full disks, and that a resumed run continues exactly."""

from __future__ import annotations

import os
from abc import abstractmethod
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import Logger, Record

if TYPE_CHECKING:
    from ..engine import Engine


class TextFile(Logger):
    """Adds the lines of each record to a file, at once and all together.

    Half a line, from a process that was killed or a disk that was full, is taken back or ended before the next is
    written. A run that goes on from a checkpoint first removes what was written after it.

    Args:
        path: The file, which is added to; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file: FileIO | None = None
        self._size: int | None = None
        self._last = b""
        self._torn = False
        self._resumes = False

    @abstractmethod
    def text(self, record: Record) -> str:
        """The lines of a record; empty where there is nothing to write."""

    def header(self) -> str:
        """The first line of a new file."""
        return ""

    def open(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = FileIO(self.path, "a+")
        size = self._file.seek(0, os.SEEK_END)
        if self._resumes and self._kept < size and self._is_the_same_file(self._file):
            size = self._file.truncate(self._kept)
        self._last = self._last if size == self._kept else b""
        self._size, self._resumes = size, False
        if not size:
            self._append(self._file, self.header().encode())
        elif _read(self._file, size - 1, 1) != b"\n":
            self._append(self._file, b"\n")

    def write(self, record: Record) -> None:
        if self._file is None:
            return
        if self._torn:
            self._mend(self._file)
        self._append(self._file, self.text(record).encode())

    def close(self, error: BaseException | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def state_dict(self) -> dict[str, Any]:
        if self._file is not None:
            with self.surviving():
                os.fsync(self._file.fileno())  # what the checkpoint counts on must be there after a power cut as well
        return {**super().state_dict(), "size": self._kept, "last": self._last.decode()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._size, self._last, self._resumes = state["size"], state["last"].encode(), True

    @property
    def _kept(self) -> int:
        """Where the last whole line ends; before anything is written, all that is there."""
        if self._size is not None:
            return self._size
        return self.path.stat().st_size if self.path.exists() else 0

    def _is_the_same_file(self, file: FileIO) -> bool:
        """Whether the record before the checkpoint is where it was: nothing is removed from another run's file."""
        return _read(file, self._kept - len(self._last), len(self._last)) == self._last

    def _append(self, file: FileIO, data: bytes) -> None:
        self._torn = True
        _write_all(file, data)
        self._torn = False
        self._size = self._kept + len(data)
        self._last = data or self._last

    def _mend(self, file: FileIO) -> None:
        try:
            file.truncate(self._kept)
        except OSError:  # not a regular file
            _write_all(file, b"\n")
        self._torn = False


def _read(file: FileIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length) or b""


def _write_all(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) or 0 :]
