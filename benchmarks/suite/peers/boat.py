"""BOAT: gradient mappings and numerical approximations by name; it takes losses as import paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import boat_torch
from torch import Tensor

from multilevel import CG, Method, Neumann

from ..bilevel import Bilevel
from ..case import UnavailableError


class BoatRun:
    """Iterations of its solver.

    Args:
        problem: What is solved.
        operation: Its name for the hypergradient.
        iterations: Of that.
    """

    def __init__(self, problem: Bilevel, operation: str, iterations: int) -> None:
        lower, upper = problem.lower(), problem.upper()
        self._parameters = [list(lower.parameters()), list(upper.parameters())]
        settings: dict[str, Any] = {
            "fo_op": None,
            "gm_op": ["NGD"],
            "na_op": [operation],
            "lower_level_model": lower,
            "upper_level_model": upper,
            "lower_level_var": self._parameters[0],
            "upper_level_var": self._parameters[1],
            "lower_level_opt": problem.lower_optimizer(self._parameters[0]),
            "upper_level_opt": problem.upper_optimizer(self._parameters[1]),
            "lower_iters": problem.inner_steps,
            "device": str(problem.setting.device),
            "loss_log_path": os.devnull,
            "accumulate_grad": False,
            "return_grad": False,
            "copy_last_param": True,
            "GDA": {"alpha_init": 0.0, "alpha_decay": 1.0},
            "RGT": {"truncate_iter": 0},
            "PTT": {"truncate_max_loss_iter": False},
            "FOA": {},
            "FD": {"r": 0.01},
            "CG": {"tolerance": 0.0, "k": iterations},
        }
        losses = {
            "lower_level_loss": {"function": f"{__name__}.lower_loss", "params": {"problem": problem}},
            "upper_level_loss": {"function": f"{__name__}.upper_loss", "params": {"problem": problem}},
        }
        self._solver = boat_torch.Problem(settings, losses)
        self._solver.build_ll_solver()
        self._solver.build_ul_solver()
        self._lower_batches, self._upper_batches = problem.endless()
        self._inner_steps, self._count = problem.inner_steps, 0

    def step(self) -> None:
        # One feed serves the whole inner loop, which has one batch wherever it has several steps.
        self._solver.run_iter({"batch": next(self._lower_batches)}, {"batch": next(self._upper_batches)}, self._count)
        self._count += 1
        # It keeps and writes all losses so far in every iteration, so that a step would cost the more the later it is.
        self._solver.loss_history.clear()
        self._solver._log_results.clear()

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return self._parameters


def lower_loss(feed: Any, upper: Any, lower: Any, params: Any = None, *, problem: Bilevel) -> Tensor:
    """The lower loss, in its order."""
    return problem.in_precision(problem.lower_loss)(lower, upper, feed["batch"])


def upper_loss(feed: Any, upper: Any, lower: Any, params: Any = None, *, problem: Bilevel) -> Tensor:
    """The upper loss, in its order."""
    return problem.in_precision(problem.upper_loss)(lower, feed["batch"])


def bilevel_run(problem: Bilevel, method: Method) -> BoatRun:
    """Two levels."""
    operations = {"darts": "FD", "neumann": "NS", "cg": "CG", "unroll": "RAD"}
    if method.name not in operations:
        raise UnavailableError(f"has no {method.name}")
    iterations = method.iterations if isinstance(method, CG | Neumann) else 0
    return BoatRun(problem, operations[method.name], iterations)
