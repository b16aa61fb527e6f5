"""A run to be killed: three levels with all that a checkpoint must keep. Also a program that trains it."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multilevel import Config, Engine, EngineConfig, Problem
from multilevel.engine.checkpoints import file as checkpoint_file
from multilevel.engine.interruption import Interrupted

ITERS, EVERY = 105, 3
STAGES = (
    "before it is written",
    "half-way",
    "before it is synced",
    "before it is renamed",
    "when it is renamed",
    "when the oldest is removed",
)


class Student(Problem):
    """Lowest: learns what the one above it says."""

    def training_step(self, batch: list[Tensor]) -> Tensor:
        (inputs,) = batch
        return (self.module(inputs) - self.teacher(inputs)).square().mean()


class Teacher(Problem):
    """In the middle: says what makes the lowest do well."""

    def training_step(self, batch: list[Tensor]) -> dict[str, Tensor]:
        (inputs,) = batch
        error = (self.student(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()
        decay = self.weights().exp() * torch.stack([p.square().sum() for p in self.module.parameters()])
        return {"loss": error + decay.sum(), "error": error}


class Weights(Problem):
    """On top: how much decay that needs."""

    def training_step(self, batch: list[Tensor]) -> Tensor:
        (inputs,) = batch
        return (
            self.student(inputs) - inputs.sum(1, keepdim=True).sin()
        ).square().mean() + self.module().square().mean()


class Vector(nn.Module):
    """A parameter that a call returns."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full((2,), -2.0))

    def forward(self) -> Tensor:
        return self.value


class Reported(Engine):
    """Writes down each engine step that is over, its checkpoint included, where a kill cannot take it back.

    Attributes:
        out: The open file that it writes to.
        wait_at: The engine step before which it waits for a signal.
    """

    out: int | None = None
    wait_at: int = sys.maxsize

    def step(self) -> None:
        if self.step_count >= self.wait_at:
            signal.pause()
        super().step()
        if self.out is not None:
            os.write(self.out, f"{self.step_count}\n".encode())


def build(run_dir: str | None, *, roll_back: bool = False, keep: int = 1, iters: int = ITERS) -> Reported:
    """The run, newly built."""
    torch.manual_seed(0)

    def data(size: int, batch: int) -> DataLoader[Any]:
        rows = torch.linspace(-2, 2, 3 * size).view(3, size).T.contiguous()
        return DataLoader(TensorDataset(rows), batch, shuffle=True)

    student = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 1))
    teacher, weights = nn.Linear(3, 1), Vector()
    low = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    mid = torch.optim.Adam(teacher.parameters(), lr=0.05)
    top = torch.optim.SGD(weights.parameters(), lr=0.1, momentum=0.5)
    problems: list[Problem] = [
        Student(
            "student",
            module=student,
            optimizer=low,
            scheduler=torch.optim.lr_scheduler.CyclicLR(low, 0.01, 0.1, step_size_up=7),
            train_data_loader=data(22, 4),
            config=Config(type="unroll", unroll_steps=2, gradient_accumulation=2),
        ),
        Teacher(
            "teacher",
            module=teacher,
            optimizer=mid,
            scheduler=torch.optim.lr_scheduler.MultiStepLR(mid, [3, 8], 0.5),
            train_data_loader=data(14, 4),
            config=Config(
                type={"name": "cg", "iterations": 2, "damping": 1.0, "warm_start": True},
                unroll_steps=2,
                gradient_accumulation=2,
            ),
        ),
        Weights("weights", module=weights, optimizer=top, train_data_loader=data(14, 4)),
    ]
    config = EngineConfig(
        train_iters=iters,
        seed=1,
        run_dir=run_dir,
        checkpoint_every=EVERY if run_dir is not None else 0,
        keep=keep,
        roll_back=roll_back,
    )
    dependencies = {
        "u2l": {"weights": ["teacher"], "teacher": ["student"]},
        "l2u": {"teacher": ["weights"], "student": ["teacher", "weights"]},
    }
    return Reported(problems, dependencies, config=config)


def train(request: dict[str, Any]) -> int:
    """Go on with the run, or begin it, as a request says; returns the exit code."""
    torch.set_num_threads(1)
    engine = build(**request["run"])
    engine.out = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    engine.resume()
    os.write(engine.out, f"{engine.step_count}\n".encode())
    if request["wait"] is not None:
        engine.wait_at = engine.step_count + request["wait"]
    if request["stage"] is not None:
        die_while_saving(request["stage"], request["save"])
    try:
        engine.run()
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


def die_while_saving(stage: str, number: int) -> None:
    """Let this process kill itself at a stage of writing its ``number``-th checkpoint from now."""
    serialized, save, replace, unlink = checkpoint_file._serialized, torch.save, Path.replace, Path.unlink
    begun = 0

    def die(here: str) -> None:
        if here == stage and begun == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(state: dict[str, Any]) -> bytes:
        nonlocal begun
        begun += 1
        die("before it is written")
        return serialized(state)

    def half(content: Any, target: IO[bytes]) -> None:
        if isinstance(target, io.BytesIO) or stage != "half-way" or begun != number:
            save(content, target)
            return
        whole = io.BytesIO()
        save(content, whole)
        target.write(whole.getvalue()[: whole.tell() // 2])
        target.flush()
        die("half-way")

    def synced(number: int) -> None:
        die("before it is synced")

    def renamed(self: Path, target: Path) -> Path:
        die("before it is renamed")
        new = replace(self, target)
        die("when it is renamed")
        return new

    def removed(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if self.name.startswith("step-"):
            die("when the oldest is removed")

    checkpoint_file._serialized = counted
    torch.save, os.fsync, Path.replace, Path.unlink = half, synced, renamed, removed  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(train(json.loads(sys.argv[1])))
