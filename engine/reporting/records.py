"""What a run left in its folder, read without running anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...configs.loader import LoadedExperiment, load
from ...hypergrad.errors import ConfigError, GraphError
from ..graph import Graph
from ..runs.folder import RunFolder
from ..summary import graph_of

Curves = dict[str, dict[int, float]]
"""Per metric, its values by engine step."""

CURVES = "curves.png"
"""What ``multilevel plot`` writes by default."""
TIMES = ("data", "forward", "backward", "sweep", "update", "compile")
"""The parts of a level's time, in their order within a level step; compiling is beside it."""


@dataclass
class RunRecord:
    """A run folder. What is missing is empty or ``None``; what cannot be read is in the remarks as well.

    Attributes:
        path: The folder.
        config: The text of ``config.yaml``.
        loaded: The experiment in it.
        problems: The metrics of each problem.
        validation: The metrics of validations.
        steps: The last engine step that anything was written at.
        seconds: How long the run had taken by then.
        report: The final metrics.
        timing: Per problem its ``steps``, and the seconds spent on each of :data:`TIMES`.
        audit: The audit, as ``Audit.to_json`` writes it.
        error: The traceback of a run that failed.
        checkpoints: The checkpoints, oldest first.
        pictures: Those that the engine of the run drew.
        began: When the settings were written.
        remarks: What could not be read, one sentence each.
    """

    path: Path
    config: str | None = None
    loaded: LoadedExperiment | None = None
    problems: dict[str, Curves] = field(default_factory=dict)
    validation: Curves = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    report: dict[str, float] = field(default_factory=dict)
    timing: dict[str, dict[str, float]] = field(default_factory=dict)
    audit: dict[str, Any] | None = None
    error: str | None = None
    checkpoints: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    began: float | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The experiment's name, or that of the folder."""
        return self.loaded.experiment.name if self.loaded else self.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, and did not fail when it was to go on from there."""
        return RunFolder(self.path).finished and self.error is None

    def graph(self) -> Graph | None:
        """The graph of the experiment, where it can be read."""
        try:
            return graph_of(self.loaded) if self.loaded else None
        except (ConfigError, GraphError):
            return None

    def levels(self) -> list[str]:
        """The problems, from the top down; those that only the metrics know come last."""
        graph = self.graph()
        known = reversed(graph.order) if graph else (self.loaded.experiment.problems if self.loaded else ())
        return list(dict.fromkeys([*known, *self.problems, *self.timing]))

    def values(self) -> Iterator[float]:
        """Every value of every metric."""
        for curves in (*self.problems.values(), self.validation):
            for series in curves.values():
                yield from series.values()


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return any((path / name).is_file() for name in ("config.yaml", "metrics.jsonl"))


def read_run(path: Path) -> RunRecord:
    """Read the folder of one run.

    Args:
        path: The folder. A run that was killed may have left half a line, and not everything has to be there.
    """
    run = RunRecord(path)
    run.config = _text(path / "config.yaml", run)
    if run.config is not None:
        try:
            run.loaded = load(path / "config.yaml")
        except ConfigError as error:
            run.remarks.append(f"config.yaml is not an experiment of this version: {error}")
        run.began = (path / "config.yaml").stat().st_mtime
    _read_metrics(run)
    run.report = dict(_numbers(_json(path / "report.json", run)))
    timing = _json(path / "timing.json", run).get("problems")
    for name, times in timing.items() if isinstance(timing, dict) else ():
        run.timing[name] = dict(_numbers(times))
    run.audit = _json(path / "audit.json", run) or None
    run.error = _text(path / "error.txt", run)
    run.pictures = sorted(file for file in path.glob("*.png") if file.name != CURVES)
    run.checkpoints = RunFolder(path).checkpoints
    return run


def _read_metrics(run: RunRecord) -> None:
    lines = (_text(run.path / "metrics.jsonl", run) or "").splitlines()
    unreadable = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            step, seconds = int(record["step"]), float(record.get("seconds", 0))
            if "problem" in record:
                curves = run.problems.setdefault(str(record["problem"]), {})
                found = dict(_numbers(record["metrics"]))
            else:
                curves, found = run.validation, dict(_numbers(record["validation"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            unreadable += [number] if line.strip() else []
            continue
        if step < run.steps:  # resumed from a checkpoint: what was written of later steps did not count
            _forget_from(step, run)
        for name, value in found.items():
            curves.setdefault(name, {})[step] = value
        run.steps, run.seconds = step, seconds
    if unreadable and unreadable[-1] == len(lines):
        unreadable.pop()  # half a line: the run was killed while writing it, or is still going on
    if unreadable:
        some = ", ".join(map(str, unreadable[:5])) + (", ..." if len(unreadable) > 5 else "")
        run.remarks.append(f"metrics.jsonl: {len(unreadable)} lines cannot be read and are left out (line {some})")


def _forget_from(step: int, run: RunRecord) -> None:
    for curves in (*run.problems.values(), run.validation):
        for metric, values in curves.items():
            curves[metric] = {at: value for at, value in values.items() if at < step}


def _numbers(metrics: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The single numbers of a record; JSON has no infinities, so those are texts."""
    if not isinstance(metrics, Mapping):
        return
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif value in ("nan", "inf", "-inf") or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            try:
                yield f"{prefix}{name}", float(value)
            except OverflowError:  # an integer beyond any float
                yield f"{prefix}{name}", float("inf") if value > 0 else float("-inf")


def _text(path: Path, run: RunRecord) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        run.remarks.append(f"{path.name} cannot be read: {error.strerror}")
        return None


def _json(path: Path, run: RunRecord) -> dict[str, Any]:
    text = _text(path, run)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        run.remarks.append(f"{path.name} is not JSON: {error}")
        return {}
    if not isinstance(found, dict):
        run.remarks.append(f"{path.name} holds no JSON object")
        return {}
    return found
