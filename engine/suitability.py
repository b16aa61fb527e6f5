"""What a problem's method cannot do with what the problem is made of: refused, or said, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..hypergrad.curvature import CurvatureMethod
from ..hypergrad.errors import ConfigError, NumericsWarning
from ..hypergrad.minimised import goes_both_ways, has_decoupled_decay
from ..problems.problem import Problem

COARSE = (torch.bfloat16, torch.float16)


def check_methods(problems: Mapping[str, Problem], inside: Mapping[str, Sequence[str]], response: str) -> None:
    """Look at every problem whose best response is differentiated.

    Args:
        problems: All problems by name.
        inside: Who responds inside whose objective.
        response: ``"total"``, or ``"direct"``, which leaves the lowers of middle levels out.

    Raises:
        ConfigError: A method would give a wrong derivative of its problem, or none.
    """
    for name in sorted({member for members in inside.values() for member in members}):
        problem = problems[name]
        _refuse_parameters(problem)
        _refuse_both_ways(problem)
        if problem.method.needs_tape:
            if response == "direct" and inside[name]:
                raise _partial(problem, inside[name])
            _refuse_rates(problem)
            _refuse_closures(problem, [problems[upper] for upper, members in inside.items() if name in members])
        _warn_of_decay(problem)


def _refuse_parameters(problem: Problem) -> None:
    method = problem.method
    for parameter in problem.level.parameters:
        what = f"problem '{problem.name}': a parameter of shape {tuple(parameter.shape)} is {parameter.dtype}, and"
        if parameter.is_complex() and not method.needs_tape:
            raise ConfigError(
                f"{what} {method.name} takes inner products of real numbers; hold real and imaginary parts "
                "(torch.view_as_real) as the parameter, or use unroll"
            )
        if parameter.dtype in COARSE and method.differences:
            raise ConfigError(
                f"{what} {method.name} moves parameters by less than such numbers can tell apart; keep the parameters "
                "in float32 and compute with Config(precision='bf16'), or use a method without finite differences, "
                "such as identity or cg"
            )


def _refuse_both_ways(problem: Problem) -> None:
    method = problem.method
    if goes_both_ways(problem.optimizer) and not (method.needs_tape or method.reads_optimizer):
        raise ConfigError(
            f"problem '{problem.name}': some groups of its optimizer have maximize=True and others not, and "
            f"{method.name} differentiates the minimum of one loss, which its solution is not; make two problems of "
            "it, or use unroll"
        )


def _partial(problem: Problem, lowers: Iterable[str]) -> ConfigError:
    below = " and ".join(f"'{member}'" for member in lowers)
    return ConfigError(
        f"problem '{problem.name}': {problem.method.name} differentiates the steps that it takes, and these go down "
        f"its total gradient, through {below}, which response='direct' leaves out of its objective; set "
        "EngineConfig(response='total'), or use a method that needs the solution only, such as cg"
    )


def _refuse_rates(problem: Problem) -> None:
    for group in problem.optimizer.param_groups:
        for key, value in group.items():
            if key != "params" and isinstance(value, Tensor) and value.requires_grad:
                raise ConfigError(
                    f"problem '{problem.name}': its optimizer's {key} requires a gradient, and {problem.method.name} "
                    "takes an optimizer's settings for constants; set lr=1 and multiply the loss of training_step by "
                    "what is to be learned"
                )


def _refuse_closures(problem: Problem, uppers: Iterable[Problem]) -> None:
    for upper in uppers:
        if upper.level.update.needs_closure:
            raise ConfigError(
                f"problem '{upper.name}': {type(upper.optimizer).__name__} evaluates its loss several times in one "
                f"step, and {problem.method.name} of '{problem.name}' differentiates the steps that led to the first "
                "of them; use another optimizer, or a method that needs the solution only, such as cg"
            )


def _warn_of_decay(problem: Problem) -> None:
    method = getattr(problem.method, "inverse", problem.method)
    if isinstance(method, CurvatureMethod) and has_decoupled_decay(problem.optimizer):
        warnings.warn(
            f"problem '{problem.name}': the weight decay of {type(problem.optimizer).__name__} moves its solution, and "
            f"is no part of a loss that {method.name} could differentiate: the hypergradient is that without decay. "
            "Add the decay to the loss in training_step and set weight_decay=0, or use an optimizer that adds it to "
            "the gradient (SGD, Adam), which is accounted for",
            NumericsWarning,
            stacklevel=2,
        )
