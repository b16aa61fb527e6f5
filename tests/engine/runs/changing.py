"""The toy, run and gone on with under other settings: what the tests of that share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from multilevel.configs.loader import load
from multilevel.engine.build import build
from multilevel.engine.checkpoints.file import read_checkpoint
from multilevel.engine.cli import app
from multilevel.engine.engine import Engine
from multilevel.engine.loggers.jsonl import JsonLines

from ..toy import CODE, YAML

OWN = """

class Other(Scalar):
    pass


class Tuned(Lower):
    def __init__(self, name, *, lr=0.5, adaptive=False, **parts):
        super().__init__(name, **parts)
        self.lr, self.adaptive = lr, adaptive

    def configure_module(self):
        return Scalar()

    def configure_optimizer(self):
        kind = torch.optim.Adam if self.adaptive else torch.optim.SGD
        return kind(self.module.parameters(), lr=self.lr)

    def configure_scheduler(self):
        return torch.optim.lr_scheduler.StepLR(self.optimizer, 10)
"""
SGD = "torch.optim.SGD, lr: 0.5"
SCHEDULER = "torch.optim.lr_scheduler"
LR = "problems.lower.optimizer.lr"


def write(optimizer: str = SGD, scheduler: str = "", engine: str = "") -> None:
    """The toy with checkpoints, and another optimizer and scheduler for its lower problem."""
    Path("code.py").write_text(CODE + OWN)
    text = YAML.replace(SGD, optimizer + (f"}}\n    scheduler: {{class: {SCHEDULER}.{scheduler}" if scheduler else ""))
    text = text.replace("engine: {", f"engine: {{seed: 3, checkpoint_every: 8, keep: 99{engine}, ")
    Path("toy.yaml").write_text(text)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--quiet"])


def started(*settings: str, steps: int = 24, folder: str = "out") -> None:
    """Run so many engine steps in a new folder."""
    result = call("run", "toy.yaml", f"engine.train_iters={steps}", *settings, "--run-dir", folder)
    assert result.exit_code == 0, result.output


def resumed(*settings: str, steps: int = 40, folder: str = "out") -> Result:
    result = call("resume", folder, f"engine.train_iters={steps}", *settings)
    assert result.exit_code == 0, result.output
    return result


def newest(folder: str = "out") -> dict[str, Any]:
    return read_checkpoint(max(Path(folder).glob("checkpoints/step-*.pt")))


def group(state: dict[str, Any], name: str = "lower") -> dict[str, Any]:
    (found,) = state["problems"][name]["training"]["optimizer"]["param_groups"]
    return found


def value(state: dict[str, Any], name: str = "lower") -> float:
    return state["problems"][name]["training"]["module"]["value"].item()


def built(folder: str, *overrides: str) -> Engine:
    """What ``multilevel resume`` builds for a folder."""
    out = Path(folder)
    return build(load(out / "config.yaml", overrides), callbacks=[JsonLines(out / "metrics.jsonl")], run_dir=out)
