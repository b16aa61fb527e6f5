"""Memory, work and time are measured right, where they are known."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from suite import memory
from suite.case import HAND
from suite.counting import counted
from suite.timing import STEPS, time_interleaved
from torch import Tensor

CPU = torch.device("cpu")
KILO = 1024


class Allocating:
    """Keeps one kilobyte, and needs four more for a moment in each step."""

    def __init__(self) -> None:
        self.kept = torch.zeros(KILO, dtype=torch.uint8)

    def step(self) -> None:
        torch.zeros(4 * KILO, dtype=torch.uint8)

    def parameters(self) -> list[list[Tensor]]:
        return [[self.kept]]


def test_peak_memory_is_what_is_held_at_once() -> None:
    assert memory.held(Allocating, CPU) == KILO
    assert memory.peak(Allocating, CPU) == 5 * KILO


def test_backward_passes_are_told_apart() -> None:
    x = torch.ones(3, requires_grad=True)
    with counted() as passes:
        (gradient,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)
        torch.autograd.grad(gradient, x, torch.ones(3))
        x.square().sum().backward()
    torch.autograd.grad(x.sum(), x)
    assert (passes.gradients, passes.recorded, passes.products) == (1, 1, 1)


class Walking:
    """Steps away from zero, and notes where each began."""

    def __init__(self, log: list[Any], name: str) -> None:
        self.place, self._log, self._name = torch.zeros(1), log, name

    def step(self) -> None:
        self._log.append((self._name, self.place.item()))
        self.place += 1

    def parameters(self) -> list[list[Tensor]]:
        return [[self.place]]


def test_turns_rotate_and_begin_at_the_start() -> None:
    log: list[Any] = []
    runs = {name: Walking(log, name) for name in (HAND, "a", "b")}
    times = time_interleaved(runs, rounds=3, block=0.0, warmup=0.0, device=CPU)
    assert log[-9:] == [(name, 0.0) for name in (HAND, "a", "b", "a", "b", HAND, "b", HAND, "a")]
    assert times[HAND].ratio == pytest.approx(1)
    assert all(t.seconds > 0 for t in times.values())


class Compiling:
    """Its third step takes longer than all others together."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        time.sleep(0.3 if self.steps == 3 else 0.001)

    def parameters(self) -> list[list[Tensor]]:
        return []


def test_a_block_has_as_many_steps_as_fit_once_all_is_compiled() -> None:
    """With fewer it would be timed cold."""
    run = Compiling()
    time_interleaved({HAND: run}, rounds=1, block=0.05, warmup=0.0, device=CPU)
    assert run.steps - STEPS > 10
