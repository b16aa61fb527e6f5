"""The folder of one run: what was asked for, what was measured, what was learned."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..configs.loader import LoadedExperiment, dump
from ..hypergrad.errors import ConfigError
from .metrics import plain

if TYPE_CHECKING:
    from .engine import Engine

BESIDE = re.compile(r"^([^:]+\.py):\w+$")


class RunFolder:
    """Where one run writes.

    * ``config.yaml``: every setting, defaults and overrides included, and the Python files that it names. ``multilevel
      run <folder>/config.yaml`` repeats the run.
    * ``metrics.jsonl``, ``report.json``: what was measured on the way, and in the end.
    * ``final.pt``: the weights, ``{problem: module.state_dict()}``.
    * ``error.txt``: the traceback of a run that failed.

    Args:
        path: The folder; made when the run starts.

    Raises:
        ConfigError: There is a run in it already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and (not path.is_dir() or self.config.exists()):
            raise ConfigError(f"--run-dir {path}: there is a run in it already; name another folder, or remove it")

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics of the run."""
        return self.path / "metrics.jsonl"

    def start(self, loaded: LoadedExperiment) -> None:
        """Make the folder and write what was asked for.

        Raises:
            ConfigError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--run-dir {self.path}: {error}") from error
        self.config.write_text(dump(loaded.experiment), encoding="utf-8")
        for file in set(_files_named(loaded.experiment.plain())):
            copy = self.path / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(loaded.folder / file, copy)

    def save_weights(self, engine: Engine) -> None:
        """Write what was learned."""
        torch.save({name: p.module.state_dict() for name, p in engine.problems.items()}, self.path / "final.pt")

    def save_report(self, report: Mapping[str, float]) -> None:
        """Write the final metrics."""
        (self.path / "report.json").write_text(json.dumps(plain(report), indent=2) + "\n", encoding="utf-8")

    def fail(self, error: BaseException) -> Path:
        """Write the traceback of an error and return its file."""
        path = self.path / "error.txt"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return path


def timestamped(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/<name>-<date>-<time>``, with a number behind where that is taken."""
    path = first = parent / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


def _files_named(value: Any) -> Iterator[str]:
    """The files in every ``class: file.py:Name``."""
    if isinstance(value, Mapping):
        named = BESIDE.match(str(value.get("class", "")))
        if named:
            yield named[1]
        for item in value.values():
            yield from _files_named(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _files_named(item)
