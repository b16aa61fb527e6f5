"""Where the time of a run goes: per problem, and per part of its level steps."""

from __future__ import annotations

from dataclasses import dataclass, fields
from time import perf_counter

import torch


@dataclass
class Times:
    """Seconds that one problem's level steps took.

    On a GPU, which works on while the host goes ahead, a part counts until the host left it; with
    ``EngineConfig(timing=True)`` the host waits, and a part counts until it was done.

    Attributes:
        steps: Level steps.
        data: Drawing batches, and copying what looking back at them takes.
        forward: ``training_step``; where the step is compiled, its gradients too.
        backward: The one backward pass for its own gradient and the cotangents of its lowers.
        sweep: Pulling these back through the lowers: what hypergradients cost.
        update: Accumulating, clipping, optimizer and scheduler.
        compile: What ``EngineConfig(compile=True)`` takes beside the steps: reading, recording and compiling them, and
            trying their programs.
    """

    steps: int = 0
    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    sweep: float = 0.0
    update: float = 0.0
    compile: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return self.data + self.forward + self.backward + self.sweep + self.update + self.compile

    def state_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Stopwatch:
    """Adds the time since its last lap to a part of one problem's :class:`Times`.

    Args:
        times: What it adds to.
        wait_for: The device to wait for at each lap; ``None`` never waits.
    """

    __slots__ = ("_before", "_device", "_last", "_spent")

    def __init__(self, times: Times, wait_for: torch.device | None = None) -> None:
        self._spent = vars(times)
        self._before = self._spent.copy()
        self._device = wait_for if wait_for is not None and wait_for.type != "cpu" else None
        self._last = perf_counter()

    def lap(self, part: str) -> None:
        """Everything since the last lap was this part."""
        if self._device is not None:
            torch.accelerator.synchronize(self._device)
        now = perf_counter()
        self._spent[part] += now - self._last
        self._last = now

    @property
    def laps(self) -> dict[str, float]:
        """What it added so far, by part."""
        return {part: spent - self._before[part] for part, spent in self._spent.items()}

    def aside(self, part: str, seconds: float) -> None:
        """So much of the time since the last lap was this part, and is none of the next lap."""
        self._spent[part] += seconds
        self._last += seconds
