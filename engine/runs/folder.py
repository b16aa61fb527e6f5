"""The folder of one run: what was asked for, what was measured, what was learned."""

from __future__ import annotations

import json
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import torch

from ...configs.loader import LoadedExperiment
from ...hypergrad.errors import ConfigError
from ..atomic import copy_file, write_text
from ..checkpoints.folder import CheckpointFolder
from ..metrics import plain
from .final import read_report
from .lock import held
from .settings import dump, files_named

if TYPE_CHECKING:
    from ..audit.report import Audit
    from ..engine import Engine

MANY = "sweep.json"
"""What makes a folder one of many runs."""


class RunFolder:
    """Where one run writes.

    * ``config.yaml``: every setting, defaults and overrides included, and the Python files that it names. ``multilevel
      run <folder>/config.yaml`` repeats the run, ``multilevel resume <folder>`` goes on with it.
    * ``checkpoints/``: where it can go on from.
    * ``metrics.jsonl``, ``report.json``: what was measured on the way, and in the end. A run with a report is finished.
    * ``timing.json``: where the time of each problem went.
    * ``final.pt``: the weights, ``{problem: module.state_dict()}``.
    * ``error.txt``: the traceback of a run that failed.

    Args:
        path: The folder; made when the run starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved settings. Written last when a run starts, so that a folder with it has everything."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics of the run."""
        return self.path / "metrics.jsonl"

    @property
    def exists(self) -> bool:
        """Whether there is a run in it."""
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self._report.is_file()

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that the run may go on from, newest first."""
        return CheckpointFolder(self.path / "checkpoints", keep=1).files()

    @property
    def report(self) -> dict[str, float]:
        """The final metrics of a finished run; a ConfigError where the file is damaged."""
        return read_report(self._report)

    @property
    def error(self) -> str | None:
        """The last line of the traceback of a run that failed."""
        if not self._error.is_file():
            return None
        lines = [line.strip() for line in self._error.read_text(encoding="utf-8").splitlines() if line.strip()]
        return re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", lines[-1]) if lines else "failed"

    def refuse_taken(self) -> None:
        """Refuse a folder in which there is something already.

        Raises:
            ConfigError: There is a run in it, or many, or it is a file.
        """
        if self.exists or (self.path / MANY).exists():
            raise ConfigError(
                f"--run-dir {self.path}: there is a run in it already; go on with it (--resume auto, or: multilevel "
                f"resume {quote(str(self.path))}), name another folder, or remove it"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--run-dir {self.path}: expected a folder, found a file")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and hold it while the block runs, so that no other process writes into it.

        Raises:
            ConfigError: Another process holds it, or it cannot be written.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._probe()
        with held(self.path):
            yield

    def start(self, loaded: LoadedExperiment) -> None:
        """Write what is asked for into a folder that no run has.

        Raises:
            ConfigError: It cannot be written, or has other files of the names that are to be copied there.
        """
        self.refuse_taken()
        for file in self.changed_files(loaded):
            raise ConfigError(
                f"--run-dir {self.path}: has another {file} than the one beside the experiment, which is to be copied "
                "there; name another folder"
            )
        self._write(loaded)

    def unstart(self) -> None:
        """Make room for another attempt at a run that trained nothing."""
        for path in (self.config, *self.checkpoints):
            path.unlink(missing_ok=True)

    def changed_files(self, loaded: LoadedExperiment) -> list[str]:
        """The files of code that are not what they were when the run began."""
        pairs = [(source, copy) for source, copy in self._files(loaded) if copy.is_file()]
        return [str(copy.relative_to(self.path)) for source, copy in pairs if source.read_bytes() != copy.read_bytes()]

    def reopen(self, loaded: LoadedExperiment) -> None:
        """Make ready to go on, under settings that may have changed.

        Raises:
            ConfigError: It cannot be written.
        """
        with self._writing():
            self._report.unlink(missing_ok=True)  # first: from here on the run is not finished
            self.forget_error()
        self._write(loaded)

    def forget_metrics(self) -> None:
        """Put aside what an attempt measured that left no checkpoint, under names that end in ``.old``."""
        with self._writing():
            for name in ("metrics.jsonl", "metrics.csv", "tensorboard"):
                path, old = self.path / name, self.path / f"{name}.old"
                if path.exists():
                    shutil.rmtree(old, ignore_errors=True)
                    path.replace(old)

    def save_weights(self, engine: Engine) -> None:
        """Write what was learned.

        Raises:
            OSError: It cannot be written.
        """
        path, beside = self.path / "final.pt", self.path / ".final.pt"
        try:
            torch.save({name: p.module.state_dict() for name, p in engine.problems.items()}, beside)
            beside.replace(path)
        except RuntimeError as error:  # torch's writer reports a full disk in its own way
            raise OSError(f"{path} cannot be written; is the disk full? ({error})") from error
        finally:
            beside.unlink(missing_ok=True)

    def save_timing(self, engine: Engine) -> None:
        """Write where the time went."""
        times = {name: spent.state_dict() for name, spent in engine.times.items()}
        write_text(self.path / "timing.json", json.dumps({"problems": times}, indent=2) + "\n")

    def save_report(self, report: Mapping[str, float]) -> None:
        """Write the final metrics, which makes the run a finished one."""
        write_text(self._report, json.dumps(plain(report), indent=2) + "\n")

    def save_audit(self, audit: Audit) -> None:
        """Write how the methods compared, beside the run that it is about.

        Raises:
            ConfigError: It cannot be written.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / "audit.json", audit.to_json() + "\n")

    def forget_error(self) -> None:
        """Remove the traceback of an earlier attempt."""
        self._error.unlink(missing_ok=True)

    def fail(self, error: BaseException | str) -> Path:
        """Write the traceback of an error, or what is known of it, and return its file."""
        text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
        self._error.write_text(text, encoding="utf-8")
        return self._error

    @property
    def _report(self) -> Path:
        return self.path / "report.json"

    @property
    def _error(self) -> Path:
        return self.path / "error.txt"

    def _write(self, loaded: LoadedExperiment) -> None:
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            for source, copy in self._files(loaded):
                if source != copy.resolve():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy_file(source, copy)
            text = dump(loaded.experiment)
            if not self.exists or self.config.read_text(encoding="utf-8") != text:
                write_text(self.config, text)

    def _files(self, loaded: LoadedExperiment) -> list[tuple[Path, Path]]:
        """The files of code that an experiment names, each with its copy here."""
        return [(loaded.folder / name, self.path / name) for name in files_named(loaded.experiment)]

    def _probe(self) -> None:
        """Write a file and remove it: a folder may exist and be full, or not ours."""
        probe = self.path / f".probe.{os.getpid()}"
        try:
            write_text(probe, "x" * 4096)
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"--run-dir {self.path}: cannot be written ({error.strerror or error}); name another folder"
            ) from error
