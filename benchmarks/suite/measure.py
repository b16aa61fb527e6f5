"""One row: who agrees with the hand-written loop, what it takes, and how long."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from . import memory, peers
from .agreement import DOUBLE, distance, travelled
from .case import COMPILED, HAND, Builder, Row, UnavailableError
from .counting import Passes, counted
from .results import Measured, RowResult
from .timing import time_interleaved


def measure(row: Row, double: Row, *, rounds: int, block: float, device: torch.device) -> RowResult:
    """Check each implementation against the hand-written one, and time those that agree.

    Args:
        row: What is measured.
        double: The same in float64.
        rounds: How often each implementation has its turn.
        block: Seconds of a turn.
        device: Where it computes.
    """
    examiner = Examiner(row, double, device)
    found = {name: examiner.examined(name) for name in row.runs}
    timed = {name: row.runs[name]() for name, run in found.items() if run.status == "timed"}
    with _warnings_of_others():
        times = time_interleaved(timed, rounds=rounds, block=block, warmup=3 * block, device=device)
    for name, t in times.items():
        run = found[name]
        run.milliseconds, run.ratio, run.quartiles = t.seconds * 1e3, t.ratio, t.quartiles
        run.busy = t.busy
    error = double.error() if double.error is not None else None
    del timed
    gc.collect()
    return RowResult(row.workload, row.method, error, found)


class Examiner:
    """Everything but the time.

    Args:
        row: What is measured.
        double: The same in float64.
        device: Where it computes.
    """

    def __init__(self, row: Row, double: Row, device: torch.device) -> None:
        self.row, self.double, self.device = row, double, device
        self.expected, self.expected_double = travelled(row.runs[HAND]), travelled(double.runs[HAND])
        self.base = memory.held(row.runs[HAND], device)

    def examined(self, name: str) -> Measured:
        """Agreement, memory and counts of one implementation."""
        try:
            if name not in peers.PEERS:
                return self._examined(name)
            with _warnings_of_others():
                return self._examined(name)
        except UnavailableError as reason:
            return Measured("skipped", str(reason))
        except Exception as error:  # whatever an implementation raises is a result; of ours, the command fails by it
            return Measured("failed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")

    def _examined(self, name: str) -> Measured:
        build, tolerance = self.row.runs[name], self.row.tolerance
        start = time.perf_counter()
        apart = distance(self.expected, travelled(build))
        first = time.perf_counter() - start
        apart_double = distance(self.expected_double, travelled(self.double.runs[name]))
        if (tolerance is not None and not apart <= tolerance) or not apart_double <= DOUBLE:
            reason = f"ends {apart:.1g} from the hand-written trajectory, {apart_double:.1g} in float64"
            return Measured("differs", reason, apart, apart_double)
        measured = Measured("timed", None, apart, apart_double, first_seconds=first)
        if name not in peers.UNSEEN:
            measured.peak_bytes = memory.peak(build, self.device) - self.base
        if name not in peers.UNCOUNTED and name != COMPILED:
            measured.passes = _passes(build)
        return measured


def _passes(build: Builder) -> Passes:
    run = build()
    run.step()  # what is only done once does not count
    with counted() as passes:
        run.step()
    return passes


@contextmanager
def _warnings_of_others() -> Iterator[None]:
    """Ignored: they are of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
