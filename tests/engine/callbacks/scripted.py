"""An engine whose validation says what a script says, and whose parameters, buffers and random numbers all move."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multilevel import Callback, Config, Engine, EngineConfig
from multilevel.engine.checkpoints.file import read_checkpoint, write_checkpoint

from ...givens import Given, flat_state

EVERY = 2
"""Engine steps from one validation to the next."""


class Shaky(nn.Module):
    """A parameter with running statistics, and a buffer that ``state_dict`` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(4))
        self.statistics = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        if self.training:
            self.calls += 1
        return self.value + 0.01 * self.statistics(torch.randn(3, 4)).mean(0)


class Scripted(Engine):
    """Validates with the next of some values of the metric ``"score"``; ``None`` for a validation without it."""

    def __init__(self, values: Sequence[float | None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.values = values

    def validation(self) -> Mapping[str, Any]:
        value = self.values[self.step_count // EVERY - 1]
        step = torch.tensor(self.step_count)
        return {"other": step} if value is None else {"score": torch.tensor(value), "other": step}


class Record(Callback):
    """Keeps what each validation saw."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        self.states[engine.step_count] = everything(engine)


def scripted(values: Sequence[float | None], *callbacks: Callback, method: str = "identity", **config: Any) -> Engine:
    """Two problems, always the same ones, trained for as long as the script goes."""
    torch.manual_seed(3)
    random.seed(3)

    def loss(problem: Given, batch: Any) -> Tensor:
        around = sum(other() for other in (*problem.uppers, *problem.lowers))
        return (problem.module() - 0.1 * around - 1).square().sum() / 2

    problems = []
    for name in ("upper", "lower"):
        module = Shaky()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        settings = Config(type=method, unroll_steps=3)
        problems.append(Given(name, loss, module, optimizer=optimizer, config=settings))
    settings = {"train_iters": EVERY * len(values), "valid_step": EVERY, "device": "cpu", **config}
    return Scripted(
        values, problems, edges=[("upper", "lower")], config=EngineConfig(**settings), callbacks=list(callbacks)
    )


def everything(engine: Engine) -> dict[str, Tensor]:
    """Copies of every parameter and buffer, those that ``state_dict`` leaves out as well."""
    unsaved = {f"{name}.calls": problem.module.calls.clone() for name, problem in engine.problems.items()}
    return {**flat_state(engine), **unsaved}


def cut(engine: Engine, steps: int, folder: Path) -> dict[str, Any]:
    """The state of an engine after some engine steps, by way of a file."""
    path = folder / "cut.pt"
    for _ in range(steps):
        if not engine.done:
            engine.step()
    write_checkpoint(path, engine.state_dict(), engine.step_count)
    return read_checkpoint(path)


def improvements(values: Sequence[float | None], mode: str, min_delta: float) -> list[int]:
    """The positions of the values that are better than the last such one by more than ``min_delta``."""
    found: list[int] = []
    for i, value in enumerate(values):
        if value is not None and math.isfinite(value):
            gain = math.inf if not found else (values[found[-1]] - value) * (1 if mode == "min" else -1)
            if gain > min_delta:
                found.append(i)
    return found
