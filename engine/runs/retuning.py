"""Other options for an optimizer and its scheduler, put into what a checkpoint holds of them.

torch brings back the options that a state was saved with, over those that the optimizer was built with. So the problem
is built twice beside the one that trains, by the settings of then and by those of now; its scheduler, which knows no
other past, takes as many steps as the checkpoint's. What comes out differently is what the change of the settings
makes of the run at this step, and that alone is written over what was saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...hypergrad.errors import ConfigError
from ...problems.level_state import cloned
from ...problems.problem import Problem

Build = Callable[[], Problem]
ABSENT = object()


@dataclass(frozen=True)
class Retuned:
    """An optimizer and its scheduler after so many steps, had their settings been these from the start."""

    optimizer: Optimizer
    scheduler: Any

    @property
    def kinds(self) -> tuple[str, str]:
        """What the two are."""
        return type(self.optimizer).__qualname__, type(self.scheduler).__qualname__

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The options of each parameter group."""
        groups = self.optimizer.param_groups
        return [{key: value for key, value in group.items() if key != "params"} for group in groups]

    @property
    def schedule(self) -> dict[str, Any]:
        """The state of the scheduler."""
        return self.scheduler.state_dict() if self.scheduler is not None else {}


def retune(training: dict[str, Any], then: Build, now: Build) -> bool:
    """Write what settings change into the training state of a problem.

    Args:
        training: What ``training_state`` returned; changed in place.
        then: Builds the problem by the settings that the state was saved under.
        now: Builds it by those that it is to go on with.

    Returns:
        Whether anything was changed.

    Raises:
        ConfigError: The state does not fit an optimizer with these options.
    """
    steps = training["update"]["steps"]
    before, after = _stepped(then(), steps), _stepped(problem := now(), steps)
    saved = training["optimizer"]["param_groups"]
    if before.kinds != after.kinds or not len(before.groups) == len(after.groups) == len(saved):
        raise ConfigError(
            f"problem '{problem.name}': its class makes {_described(after)} now, and the checkpoint is that of "
            f"{_described(before)}; leave them as they were, or start another run"
        )
    changed = [_carry(*groups) for groups in zip(saved, before.groups, after.groups, strict=True)]
    if any(changed):
        _refuse_lacking(problem.name, after.optimizer, training["optimizer"])
    return _carry(training["scheduler"] or {}, before.schedule, after.schedule) or any(changed)


def _stepped(problem: Problem, steps: int) -> Retuned:
    """Let the scheduler catch up; one that watches a metric waits, for what it has seen is not there to be repeated."""
    if problem.scheduler is not None and not isinstance(problem.scheduler, ReduceLROnPlateau):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer has not stepped
            for _ in range(steps):
                problem.scheduler.step()
    return Retuned(problem.optimizer, problem.scheduler)


def _carry(saved: dict[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    changed = {key: value for key, value in after.items() if not _same(before.get(key, ABSENT), value)}
    saved.update(changed)
    return bool(changed)


def _refuse_lacking(name: str, optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Refuse options under which the optimizer needs more of its state than was kept (``amsgrad``, a momentum).

    Only a step shows it. One is taken with copies, of one parameter of each group that has a state, along no gradient.

    Raises:
        ConfigError: They are such options.
    """
    live, groups = [], []
    for group, kept in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for parameter, number in zip(group["params"], kept["params"], strict=True):
            if number in saved["state"]:
                copy = parameter.detach().clone().requires_grad_()
                copy.grad = torch.zeros_like(copy)
                live.append({**group, "params": [copy]})
                groups.append({**kept, "params": [number]})
                break
    if not groups:
        return
    optimizer.param_groups = live
    states = {number: cloned(saved["state"][number]) for group in groups for number in group["params"]}
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    try:
        optimizer.step()
    except KeyError as lacking:
        raise ConfigError(
            f"problem '{name}': with these options {type(optimizer).__name__} needs {lacking} in its state, and the "
            "checkpoint is that of one without; leave them as they were, or start another run"
        ) from lacking
    except Exception:  # one that evaluates its loss, say: then nothing is known, and the first step of the run shows it
        return


def _described(made: Retuned) -> str:
    optimizer, scheduler = made.kinds
    beside = f" with {scheduler}" if made.scheduler is not None else ""
    return f"{optimizer}{beside} over {len(made.groups)} parameter groups"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
