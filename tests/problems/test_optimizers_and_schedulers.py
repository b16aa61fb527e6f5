"""Every optimizer of torch with every scheduler of torch, at both of two levels: trains, is saved, and goes on.

The law: three steps, a checkpoint file, a newly built engine and three more steps end in the bits of six steps.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler, swa_utils

from multilevel import Config, Engine
from multilevel.engine.checkpoints.file import read_checkpoint, write_checkpoint

from ..givens import Given, assert_same, bits, flat_state
from .test_optimizers import INDICES, OPTIMIZERS, optimizer_over, outputs
from .test_schedulers import NOT_SCHEDULERS, SCHEDULERS

KINDS = {
    name: cls
    for module in (lr_scheduler, swa_utils)
    for name, cls in vars(module).items()
    if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler) and name not in NOT_SCHEDULERS
}
# Every optimizer and every scheduler by default, and all pairs of them among the slow proofs.
PAIRS = [
    pytest.param(optimizer, scheduler, marks=() if (i - j) % len(OPTIMIZERS) == 0 else pytest.mark.slow)
    for i, optimizer in enumerate(OPTIMIZERS)
    for j, scheduler in enumerate(KINDS)
]


def moves_momentum(optimizer: Optimizer) -> bool:
    return "momentum" in optimizer.defaults or "betas" in optimizer.defaults


MADE: dict[str, Callable[[Optimizer], Any]] = {
    **SCHEDULERS,
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, cycle_momentum=moves_momentum(o)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=10, cycle_momentum=moves_momentum(o)),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=4),
}


def net(optimizer: str) -> nn.Module:
    if optimizer == "SparseAdam":
        return nn.Embedding(4, 2, sparse=True)
    return nn.Linear(3, 2, bias=optimizer != "Muon")  # Muon takes matrices only


def following(problem: Given, batch: Any) -> Tensor:
    wanted = problem.upper(INDICES) if isinstance(problem.module, nn.Embedding) else problem.upper.module.weight.exp()
    return (outputs(problem.module) - wanted.mean(-1, keepdim=True)[: len(outputs(problem.module))]).square().mean()


def above(problem: Given, batch: Any) -> Tensor:
    return (outputs(problem.lower.module) - 1).square().mean() + outputs(problem.module).square().mean() / 10


def built(optimizer: str, scheduler: str, seed: int = 0) -> Engine:
    """A new engine whose two problems both have this optimizer and this scheduler."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for GPUs, for longer than all else here takes
    modules = [net(optimizer), net(optimizer)]
    steppers = [optimizer_over(module, optimizer) for module in modules]
    lower, upper = (
        {"module": module, "optimizer": stepper, "scheduler": MADE[scheduler](stepper)}
        for module, stepper in zip(modules, steppers, strict=True)
    )
    problems = [Given("lower", following, config=Config(type="darts"), **lower), Given("upper", above, **upper)]
    return Engine(problems, edges=[("upper", "lower")])


def trained(engine: Engine, steps: int) -> Engine:
    for _ in range(steps):
        engine.step()
    return engine


# torch's own: SequentialLR and CosineAnnealingWarmRestarts pass an epoch to the schedulers that they are made of.
@pytest.mark.filterwarnings("ignore:.*epoch parameter.*:UserWarning")
@pytest.mark.parametrize(("optimizer", "scheduler"), PAIRS)
def test_both_levels_train_and_go_on_from_a_file_to_the_same_bits(
    optimizer: str, scheduler: str, tmp_path: Path
) -> None:
    whole = built(optimizer, scheduler)
    start = flat_state(whole)
    counted = [copy.deepcopy(problem.scheduler.state_dict()) for problem in whole.problems.values()]
    trained(whole, 3)
    for problem, before in zip(whole.problems.values(), counted, strict=True):
        assert problem.scheduler.state_dict() != before
    write_checkpoint(tmp_path / "three.pt", whole.state_dict(), 3)

    resumed = built(optimizer, scheduler, seed=1)
    resumed.load_state_dict(read_checkpoint(tmp_path / "three.pt"))
    assert_same(bits(resumed), bits(whole))
    assert_same(bits(trained(resumed, 3)), bits(trained(whole, 3)))
    assert all(not torch.equal(now, start[key]) for key, now in flat_state(whole).items()), "a level stood still"
