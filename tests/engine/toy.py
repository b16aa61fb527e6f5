"""A two-level experiment small enough to run in milliseconds: the lower follows the upper, which wants it at 1."""

from __future__ import annotations

from pathlib import Path

CODE = """
import torch
from torch import nn
from multilevel import Engine, Problem


class Scalar(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([float(value)]))

    def forward(self):
        return self.value


def noise(count, scale=0.0):
    return [scale * torch.randn(1) for _ in range(count)]


class Upper(Problem):
    def training_step(self, batch):
        return {"loss": ((self.lower() - 1) ** 2).sum(), "distance": (self.lower() - 1).abs().sum()}


class Lower(Problem):
    def __init__(self, name, *, weight=1.0, bomb=0, **parts):
        super().__init__(name, **parts)
        self.weight, self.bomb = weight, bomb

    def training_step(self, batch):
        if self.bomb and self.count == self.bomb:
            raise KeyboardInterrupt if self.bomb == 13 else RuntimeError("boom")
        shift = 0.0 if batch is None else batch
        return self.weight * ((self.module() - self.upper() - shift) ** 2).sum() / 2


class Own(Lower):
    def configure_module(self):
        return Scalar()

    def configure_optimizer(self):
        return torch.optim.SGD(self.module.parameters(), lr=0.5)


class Toy(Engine):
    def __init__(self, *args, goal=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.goal = goal

    def validation(self):
        return {"distance": (self["lower"].module() - self.goal).abs().sum()}

    def report(self, run_dir):
        if self.goal < 0:
            raise RuntimeError("no picture")
        (run_dir / "picture.txt").write_text("picture")
        return {**super().report(run_dir), "steps": self.step_count}
"""

YAML = """\
description: The lower follows the upper.
engine: {train_iters: 60, valid_step: 20, class: code.py:Toy}
problems:
  upper:
    class: code.py:Upper
    module: {class: code.py:Scalar, value: 3}
    optimizer: {class: torch.optim.SGD, lr: 0.1}
  lower:
    class: code.py:Lower
    module: {class: code.py:Scalar}
    optimizer: {class: torch.optim.SGD, lr: 0.5}
    config: {type: {name: cg}, unroll_steps: 2}
edges:
- [upper, lower]
"""


def write_toy(folder: Path, yaml: str = YAML) -> Path:
    """Write the experiment and its code into a folder and return the path of the YAML."""
    (folder / "code.py").write_text(CODE)
    path = folder / "toy.yaml"
    path.write_text(yaml)
    return path
