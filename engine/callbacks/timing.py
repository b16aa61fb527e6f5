"""Where the time of a run went, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...problems.processes import is_first_process
from ..streams import standard_error
from ..tables import table
from .base import Callback

if TYPE_CHECKING:
    from ..engine import Engine

HOST_TIME = "; the host's time, which a GPU is behind: EngineConfig(timing=True) waits for it"
PARTS = ("data", "forward", "backward", "sweep", "update")
IF_ANY = "compile"
"""A part that most runs have not."""


class Timing(Callback):
    """Prints at the end of a run where its time went, on standard error: what :func:`timing_table` returns."""

    def on_run_end(self, engine: Engine) -> None:
        if is_first_process():
            print(timing_table(engine), file=standard_error())


def timing_table(engine: Engine) -> str:
    """The time of each problem's level steps, by its parts, and the share that hypergradients took.

    Everything since the first step of the run counts, in the runs it went on from as well. Validations and loggers are
    in none of it.
    """
    times = engine.times
    seconds = sum(spent.total for spent in times.values())
    shown = [*PARTS, *([IF_ANY] if any(getattr(spent, IF_ANY) for spent in times.values()) else [])]
    rows = []
    for name in reversed(engine.graph.order):
        spent = times[name]
        each = spent.total / spent.steps if spent.steps else 0.0
        parts = [_share(getattr(spent, part), spent.total) for part in shown]
        rows.append((name, f"{spent.steps:,}", f"{each * 1e3:.2f} ms", *parts, _share(spent.total, seconds)))
    header = ("problem", "steps", "per step", *shown, "of the run")
    sweep = sum(spent.sweep for spent in times.values())
    host = "" if engine.device.type == "cpu" or engine.config.timing else HOST_TIME
    total = f"{_duration(seconds)}, {_share(sweep, seconds)} of it on hypergradients (sweep){host}"
    return f"{table(header, rows)}\n{total}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
