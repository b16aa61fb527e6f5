"""What was measured, as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .counting import Passes

Status: TypeAlias = Literal["timed", "skipped", "differs", "failed"]


@dataclass
class Measured:
    """One implementation of one row.

    Attributes:
        status: Whether it was timed; ``"skipped"`` where it cannot run the row, ``"differs"`` where it does something
            else than the hand-written loop, ``"failed"`` where it raised an error.
        reason: Why it was not timed.
        distance: From the hand-written trajectory, relative to how far that moved.
        distance_float64: The same in float64.
        milliseconds: Of a step of the top problem; median.
        ratio: To the hand-written loop; median over the rounds.
        quartiles: Of that ratio.
        busy: Processor seconds by seconds.
        first_seconds: Of building it and its first six steps, in this process: compilation is in it.
        peak_bytes: Most bytes of tensors held at once, beyond the parameters and data of the hand-written loop.
        passes: Backward passes of one step of the top problem and the steps below it.
    """

    status: Status
    reason: str | None = None
    distance: float | None = None
    distance_float64: float | None = None
    milliseconds: float | None = None
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None
    busy: float | None = None
    first_seconds: float | None = None
    peak_bytes: int | None = None
    passes: Passes | None = None


@dataclass
class RowResult:
    """One row.

    Attributes:
        workload, method: Its name.
        error: Of one hypergradient, relative to the exact one, in float64; ``None`` where that is not cheap.
        runs: By implementation.
    """

    workload: str
    method: str
    error: float | None
    runs: dict[str, Measured]


@dataclass
class Results:
    """All of one machine.

    Attributes:
        machine: Facts.
        rounds: How often each implementation had its turn.
        imports: Seconds by program.
        rows: In the order of the table.
    """

    machine: dict[str, Any]
    rounds: int
    imports: dict[str, float] = field(default_factory=dict)
    rows: list[RowResult] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Save."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")


def read(path: Path) -> Results:
    """What :meth:`Results.write` saved."""
    content = json.loads(path.read_text())
    return Results(**{**content, "rows": [_row(row) for row in content["rows"]]})


def _row(content: dict[str, Any]) -> RowResult:
    runs = {name: _measured(run) for name, run in content["runs"].items()}
    return RowResult(content["workload"], content["method"], content.get("error"), runs)


def _measured(content: dict[str, Any]) -> Measured:
    passes = content.get("passes")
    return Measured(**{**content, "passes": Passes(**passes) if passes else None})


def merged(old: Results, new: Results, order: Iterable[str]) -> Results:
    """The new rows, and those of other workloads where they were measured on the same machine and versions."""
    if old.machine != new.machine or old.rounds != new.rounds:
        return new
    measured = {row.workload for row in new.rows}
    rows = [*new.rows, *(row for row in old.rows if row.workload not in measured)]
    position = {workload: place for place, workload in enumerate(order)}
    return Results(
        new.machine, new.rounds, new.imports or old.imports, sorted(rows, key=lambda r: position[r.workload])
    )


def _rounded(value: Any) -> Any:
    """Four digits are more than can be told."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
