"""Everything that training changes in a problem, as data, and back.

``training`` is what a step moves: parameters, buffers, optimizer, scheduler, accumulated gradients, what the method
remembers. ``position`` is where in its data and in its inner loop the problem is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..hypergrad.errors import CheckpointWarning, warn_once
from .moment_state import moment_from_state, moment_state
from .packing import PackingError

if TYPE_CHECKING:
    from .level import ProblemLevel
    from .problem import Problem


def training_state(problem: Problem) -> dict[str, Any]:
    """What a step moves. Tensors are the live ones; :func:`cloned` keeps them as they are."""
    level = problem.level
    return {
        "module": problem.module.state_dict(),
        "buffers": _unsaved_buffers(problem.module),
        "optimizer": problem.optimizer.state_dict(),
        "scheduler": problem.scheduler.state_dict() if problem.scheduler is not None else None,
        "update": level.update.state_dict(),
        "memory": dict(level.memory),
        "count": problem.count,
    }


def load_training_state(problem: Problem, state: dict[str, Any]) -> None:
    """Take up what :func:`training_state` returned, which is left alone."""
    level = problem.level
    problem.module.load_state_dict(state["module"])
    with torch.no_grad():
        for name, buffer in _unsaved_buffers(problem.module).items():
            if name in state["buffers"]:
                buffer.copy_(state["buffers"][name])
    _load_optimizer(problem.optimizer, cloned(state["optimizer"]))
    if problem.scheduler is not None and state["scheduler"] is not None:
        problem.scheduler.load_state_dict(cloned(state["scheduler"]))
    level.update.load_state_dict(cloned(state["update"]))
    level.memory.clear()
    level.memory.update(_on_device(cloned(state["memory"]), level.parameters[0].device))
    problem.count = state["count"]


def position(level: ProblemLevel) -> dict[str, Any]:
    """Where in its data and in its inner loop the problem is."""
    name = level.name
    try:
        return {
            "batches": level.batches.state_dict(),
            "ahead": level.ahead.state_dict(),
            "moment": moment_state(level.moment),
            "loop": level.loop.state_dict() if level.loop is not None else None,
            "host_random": level.training_step.host_random,
        }
    except PackingError as error:
        warn_once(
            f"unpackable batches of {name}",
            f"problem '{name}', in a batch: {error}; a run that goes on from this checkpoint draws another batch where "
            "it would have used that one again, so it is close to, but not exactly, the uninterrupted run. Use "
            "tensors, arrays, numbers, texts and containers of them",
            CheckpointWarning,
        )
        return {"batches": level.batches.state_dict(), "host_random": level.training_step.host_random}


def load_position(level: ProblemLevel, state: dict[str, Any]) -> None:
    """Take up what :func:`position` returned; random numbers stay as they are."""
    level.batches.load_state_dict(state["batches"], level.parameters[0].device)
    level.training_step.host_random = state["host_random"]
    level.ahead.load_state_dict(state.get("ahead"), level.parameters[0].device)
    moment = state.get("moment")
    level.moment = moment_from_state(moment, level) if moment is not None else None
    if level.loop is not None and state.get("loop") is not None:
        level.loop.load_state_dict(state["loop"])


def cloned(tree: Any) -> Any:
    """A copy of nested containers whose tensors are copies too."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        copy = tree.copy()  # keeps what kind of dict it is
        for key, value in tree.items():  # update() of a Counter would add
            copy[key] = cloned(value)
        return copy
    if type(tree) in (list, tuple):
        return type(tree)(cloned(value) for value in tree)
    return tree


def _unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that ``state_dict`` leaves out (``persistent=False``)."""
    saved = set(module.state_dict())
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    options = [set(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for needed, group in zip(options, optimizer.param_groups, strict=True):
        if missing := sorted(needed - set(group)):  # torch would notice at the next step
            raise ValueError(f"its optimizer is {type(optimizer).__name__}, the state that of one without {missing[0]}")
    # torch casts the state to the dtype of its parameter, and so changes what an optimizer keeps in another one.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state["param_groups"] for i in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        for key, kept in state["state"].get(number, {}).items():
            loaded = optimizer.state[parameter][key]
            if isinstance(kept, Tensor) and kept.dtype != loaded.dtype:
                optimizer.state[parameter][key] = kept.to(loaded.device)


def _on_device(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_on_device(value, device) for value in tree)
    return tree
