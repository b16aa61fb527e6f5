"""What came out of many runs: a row for each setting, mean and deviation over its seeds, and who failed."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import write_text
from ..metrics import plain
from ..tables import table
from .folder import MANY
from .plan import Outcome, Plan, select, shown

CSV = "sweep.csv"


@dataclass(frozen=True)
class Row:
    """The runs of one setting.

    Attributes:
        settings: The setting.
        runs: Those with other seeds than each other, and nothing else.
    """

    settings: dict[str, Any]
    runs: list[Outcome]

    @property
    def reports(self) -> list[dict[str, float]]:
        """The final metrics of the runs that finished."""
        return [run.report for run in select(self.runs, "finished")]

    def values(self, metric: str) -> list[float]:
        """A metric's value in each run that has it."""
        return [report[metric] for report in self.reports if metric in report]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """The runs by their settings."""
    found: dict[str, Row] = {}
    for run in outcomes:
        found.setdefault(json.dumps(run.member.settings), Row(run.member.settings, [])).runs.append(run)
    return list(found.values())


def metrics_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Every final metric, in the order of appearance."""
    return list(dict.fromkeys(name for run in outcomes for name in run.report))


def results(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """The table of what the finished runs measured."""
    found, metrics = rows(outcomes), metrics_of(outcomes)
    if not plan.keys:
        (row,) = found
        cells = ((name, spread(row.values(name))) for name in metrics)
        count = len(row.reports)
        return table(("metric", f"mean ± std of {count} seeds" if count > 1 else "mean of 1 seed"), cells)
    if plan.metric in metrics:
        metrics = [plan.metric]
        found.sort(key=lambda row: _mean(row.values(metrics[0])))
    several = any(len(row.runs) > 1 for row in found)
    lines = [
        [
            *(shown(value) for value in row.settings.values()),
            *([_count(row)] if several else []),
            *(spread(row.values(name)) for name in metrics),
        ]
        for row in found
    ]
    return table([*plan.keys.values(), *(["runs"] if several else []), *metrics], lines)


def failures(failed: Sequence[Outcome], base: Path) -> str:
    """The folders of the runs that failed, each with its error."""
    return "\n".join(["failed:", *(f"  {base / run.member.folder}: {run.error}" for run in failed)])


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; the mean alone of one value."""
    if not values:
        return "-"
    deviation = f" ± {_deviation(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{deviation}"


def save(plan: Plan, outcomes: Sequence[Outcome], base: Path) -> None:
    """Write ``sweep.json``, which has everything, and ``sweep.csv`` with a line for each run."""
    runs = [
        {
            "folder": run.member.folder, "settings": run.member.settings, "seed": run.member.seed,
            "status": run.status, "report": plain(run.report), "error": run.error,
        }
        for run in outcomes
    ]  # fmt: skip
    head = {"experiment": plan.experiment, "jobs": plan.jobs, "metric": plan.metric}
    record = {**head, "runs": runs, "summary": [_summary(row) for row in rows(outcomes)]}
    write_text(base / MANY, json.dumps(record, indent=2) + "\n")
    write_text(base / CSV, _csv(plan, outcomes))


def _summary(row: Row) -> dict[str, Any]:
    metrics = {}
    for name in metrics_of(row.runs):
        values = row.values(name)
        deviation = _deviation(values) if len(values) > 1 else None
        metrics[name] = {"mean": statistics.fmean(values), "std": deviation}
    return {"settings": row.settings, "runs": len(row.runs), "finished": len(row.reports), "metrics": plain(metrics)}


def _csv(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    text, metrics = io.StringIO(), metrics_of(outcomes)
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["folder", "status", *plan.keys, "seed", *metrics])
    for run in outcomes:
        settings = [shown(run.member.settings[key]) for key in plan.keys]
        values = [run.report.get(name, "") for name in metrics]
        seed = "" if run.member.seed is None else run.member.seed
        lines.writerow([run.member.folder, run.status, *settings, seed, *values])
    return text.getvalue()


def _count(row: Row) -> str:
    done = len(row.reports)
    return str(done) if done == len(row.runs) else f"{done} of {len(row.runs)}"


def _mean(values: Sequence[float]) -> float:
    """For sorting: a setting without a number comes last."""
    mean = statistics.fmean(values) if values else math.nan
    return math.inf if math.isnan(mean) else mean


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
