"""Putting a problem together from constructor arguments and ``configure_*``; what is missing is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..hypergrad.errors import ConfigError, ProblemError

if TYPE_CHECKING:
    from .problem import Problem


def assemble(problem: Problem, device: torch.device | None) -> tuple[Tensor, ...]:
    """Fill in the parts that were not given, move the module, and return the trainable parameters.

    Raises:
        ConfigError: A part is missing or of the wrong kind, the problem has nothing to train, or the optimizer holds a
            parameter that is not the problem's.
    """
    if problem.module is None:
        problem.module = problem.configure_module()
    _expect(problem, "module", nn.Module, "torch.nn.Module")
    if device is not None:
        problem.module.to(device)  # in place: an optimizer over these parameters keeps them
    if problem.optimizer is None:
        problem.optimizer = problem.configure_optimizer()
    _expect(problem, "optimizer", Optimizer, "torch.optim.Optimizer")
    _move_state(problem.optimizer)
    if problem.scheduler is None:
        problem.scheduler = problem.configure_scheduler()
    if problem.scheduler is not None and not hasattr(problem.scheduler, "step"):
        raise ConfigError(
            f"problem '{problem.name}': scheduler must be a torch.optim.lr_scheduler object, "
            f"got {type(problem.scheduler).__name__}"
        )
    over = getattr(problem.scheduler, "optimizer", problem.optimizer)
    if over is not problem.optimizer:
        raise ConfigError(
            f"problem '{problem.name}': its scheduler is over another optimizer ({type(over).__name__}) than its own "
            f"({type(problem.optimizer).__name__})"
        )
    if problem.train_data_loader is None:
        problem.train_data_loader = problem.configure_train_data_loader()
    if problem.validation_data_loader is None:
        problem.validation_data_loader = problem.configure_validation_data_loader()
    parameters = tuple(problem.trainable_parameters())
    _check_parameters(problem, parameters)
    return parameters


def assemble_like(problem: Problem, other: Problem) -> None:
    """Assemble a problem around the module, the data and the neighbours of another, which notices nothing of it.

    Raises:
        ConfigError: As :func:`assemble`.
    """
    for part in ("module", "train_data_loader", "validation_data_loader"):
        if getattr(problem, part) is None:  # a class may make its parts itself, its optimizer over its module
            setattr(problem, part, getattr(other, part))
    problem.env = other.env
    problem.meet(other.uppers, other.lowers)
    assemble(problem, None)


def _expect(problem: Problem, part: str, kind: type, public_name: str) -> None:
    value = getattr(problem, part)
    if value is None:
        raise ConfigError(
            f"problem '{problem.name}': no {part}; pass {part}=... to its constructor, or override configure_{part}()"
        )
    if not isinstance(value, kind):
        raise ConfigError(f"problem '{problem.name}': {part} must be a {public_name}, got {type(value).__name__}")


def _check_parameters(problem: Problem, parameters: tuple[Tensor, ...]) -> None:
    own = {id(p) for p in problem.module.parameters()} | {id(p) for p in parameters}
    for group in problem.optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in own:
                raise ConfigError(
                    f"problem '{problem.name}': its optimizer holds a parameter of shape {tuple(parameter.shape)} "
                    "that is not its module's; build the optimizer from this module's parameters"
                )
    if not parameters:
        raise ConfigError(
            f"problem '{problem.name}': nothing to train; no parameter of its module both requires a gradient and is "
            "held by its optimizer"
        )
    for parameter in parameters:
        if not isinstance(parameter, Tensor) or not parameter.requires_grad or not parameter.is_leaf:
            raise ConfigError(
                f"problem '{problem.name}': trainable_parameters() must return leaf tensors that require gradients, "
                f"got {type(parameter).__name__}"
            )


def _move_state(optimizer: Optimizer) -> None:
    """Let the state of an optimizer that has stepped before follow its parameters to their device."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                state[key] = value.to(parameter.device)


def check_initial(name: str, parameters: Sequence[Tensor], initial: Sequence[Tensor]) -> None:
    """Refuse initial parameters that do not fit the parameters of the problem called ``name``."""
    expected, got = [tuple(p.shape) for p in parameters], [tuple(t.shape) for t in initial]
    if expected != got:
        raise ProblemError(
            f"problem '{name}': initial_parameters() must return one tensor per trainable parameter, "
            f"of shapes {expected}; got {got}"
        )
