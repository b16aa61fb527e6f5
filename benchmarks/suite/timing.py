"""Interleaved blocks: implementations take turns within one process, so that what slows one slows them all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeAlias

import torch
from torch import Tensor

from .case import HAND, Run

Wait: TypeAlias = Callable[[], None]
STEPS = 12
"""So many are taken beforehand, at least."""


@dataclass(frozen=True)
class Times:
    """How long a step of the top problem takes.

    Attributes:
        seconds: Median over the rounds.
        ratio: Median over the rounds of the ratio to the hand-written loop in the same round.
        quartiles: The first and third quartile of that ratio.
        busy: Processor seconds by seconds, of all threads: 1 where one thread computes.
    """

    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    busy: float


def time_interleaved(
    runs: Mapping[str, Run], *, rounds: int, block: float, warmup: float, device: torch.device
) -> dict[str, Times]:
    """Time every run in each round, in an order that rotates.

    Before each turn parameters are put back to where they were at the start, so that all turns do the same work however
    many steps fit.

    Args:
        runs: Built.
        rounds: How often each has its turn.
        block: Seconds of a turn, about.
        warmup: Seconds that each runs beforehand.
        device: Where they compute; its queue is emptied before a clock is read.
    """
    wait: Wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    starts = {name: [[t.detach().clone() for t in level] for level in run.parameters()] for name, run in runs.items()}
    # What was built so far is nobody's garbage: a collection should only find what a run leaves behind.
    gc.collect()
    gc.freeze()
    try:
        steps = {name: _steps_in(run, block, warmup, wait) for name, run in runs.items()}
        names, rows, busy = list(runs), [], []
        for turn in range(rounds):
            shift = turn % len(names)
            row, row_busy = {}, {}
            for name in names[shift:] + names[:shift]:
                _rewind(runs[name], starts[name])
                row[name], row_busy[name] = _measured(runs[name], steps[name], wait)
            rows.append(row)
            busy.append(row_busy)
    finally:
        gc.unfreeze()
    return {
        name: _summary(
            [row[name] for row in rows],
            [row[name] / row[HAND] for row in rows],
            [row[name] for row in busy],
        )
        for name in names
    }


@torch.no_grad()
def _rewind(run: Run, start: Sequence[Sequence[Tensor]]) -> None:
    for level, values in zip(run.parameters(), start, strict=True):
        torch._foreach_copy_(list(level), list(values))


def _steps_in(run: Run, block: float, warmup: float, wait: Wait) -> int:
    """How many steps make a block, once it is warm: most steps are then, and those that compile are not counted in."""
    begin, seconds = time.perf_counter(), []
    while len(seconds) < STEPS or time.perf_counter() < begin + warmup:
        seconds.append(_measured(run, 1, wait)[0])
    return max(1, round(block / median(seconds)))


def _measured(run: Run, steps: int, wait: Wait) -> tuple[float, float]:
    """Seconds of a step, and processor seconds by seconds."""
    wait()
    start, start_busy = time.perf_counter(), time.process_time()
    for _ in range(steps):
        run.step()
    wait()
    seconds, busy = time.perf_counter() - start, time.process_time() - start_busy
    return seconds / steps, busy / seconds


def _summary(seconds: list[float], ratios: list[float], busy: list[float]) -> Times:
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Times(median(seconds), median(ratios), (low, high), median(busy))


def _nothing() -> None:
    pass
