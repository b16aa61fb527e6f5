"""The checkpoints of one run: a few of the newest, of which the newest good one counts."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from ...hypergrad.errors import CheckpointError, CheckpointWarning
from .file import read_checkpoint, write_checkpoint

NAME = re.compile(r"^step-(\d{8,})\.pt$")


class CheckpointFolder:
    """``<run>/checkpoints/step-00000100.pt`` and so on.

    Args:
        path: The folder; made when something is saved.
        keep: How many of the newest stay.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self._keep = keep

    def files(self) -> list[Path]:
        """The files, newest first; whether they are good shows when they are read."""
        return sorted((path for path in _entries(self.path) if NAME.match(path.name)), key=_step, reverse=True)

    def steps(self) -> list[int]:
        """The engine steps of the files, newest first."""
        return [_step(path) for path in self.files()]

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are too old. The others stay valid until it is written.

        Args:
            step: Engine steps taken.
            state: What to write.

        Raises:
            OSError: It cannot be written; the others are still there.
            CheckpointError: What was written cannot be read again.
        """
        path = self.path / f"step-{step:08d}.pt"
        write_checkpoint(path, state, step)
        # Newer ones are damaged, or the run turned back from them: they must not crowd this one out.
        kept = [old for old in self.files() if _step(old) <= step]
        for old in kept[self._keep :]:
            old.unlink(missing_ok=True)
        for left in _entries(self.path):
            if left.name.startswith(".step-"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest good checkpoint and its state; ``None`` where there is none at all.

        Warns of every damaged one that it passes over.

        Raises:
            CheckpointError: There are some, and none is good.
        """
        errors: list[CheckpointError] = []
        for path in self.files():
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                errors.append(error)
                continue
            for passed in errors:
                warnings.warn(f"{passed}; going on from {path.name} instead", CheckpointWarning, stacklevel=2)
            return path, state
        if errors:
            reasons = "\n  ".join(map(str, errors))
            raise CheckpointError(f"{self.path}: no checkpoint in it can be used:\n  {reasons}")
        return None


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
