"""Learning rates and the sizes of gradients, among the metrics of each problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...hypergrad.tensors import norm
from .base import Callback

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine
    from ..gradients import LevelGradients


class Monitor(Callback):
    """Adds learning rates and norms of gradients to the metrics of each problem, for the loggers behind it to write.

    * ``"lr"``: the learning rate that the step was taken with; ``"lr 0"``, ``"lr 1"``, ... where the optimizer has
      several groups of parameters.
    * ``"gradient norm"``, of a problem without lowers: that of the batch whose loss is shown, before it is accumulated
      and clipped, and unscaled under ``precision="fp16"``.
    * of a problem with lowers, likewise: ``"hypergradient norm"``, of all that it descends; ``"direct gradient norm"``,
      of the part that its parameters have in its own loss; ``"swept gradient norm"``, of the part through its lowers.

    They are computed for those level steps only whose metrics are going to be written, and left on their device.
    """

    def __init__(self) -> None:
        self._periods: dict[str, int] = {}
        self._measured: dict[str, dict[str, Tensor]] = {}

    def on_gradients(self, engine: Engine, problem: Problem, gradients: LevelGradients) -> None:
        if not self._is_to_be_written(engine, problem):
            return
        measured = _learning_rates(problem)
        names = {"gradient norm": gradients.total}
        if problem.lowers:
            names = {"hypergradient norm": gradients.total, "direct gradient norm": gradients.direct}
            if gradients.swept is not None:
                names["swept gradient norm"] = gradients.swept
        scaler = problem.level.update.scaler
        scale = scaler.get_scale() if scaler is not None else 1.0
        with torch.no_grad():
            measured.update({name: _norm(tensors, problem.device) / scale for name, tensors in names.items()})
        self._measured[problem.name] = measured

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
        metrics.update(self._measured.pop(problem.name, {}))

    def _is_to_be_written(self, engine: Engine, problem: Problem) -> bool:
        """Whether loggers write this level step of a problem, or may be asked to before its next one."""
        config, own, upcoming = engine.config, problem.config.log_step, engine.step_count + 1
        period = self._period(engine, problem.name)

        def due(every: int) -> bool:
            return -upcoming % every < period

        written = (problem.count + 1) % own == 0 if own > 0 else due(config.log_step)
        # At the end of the run everything is written, and a validation may end it.
        ends = upcoming + period > config.train_iters or (config.valid_step > 0 and due(config.valid_step))
        return written or ends

    def _period(self, engine: Engine, name: str) -> int:
        """Most engine steps from one level step of a problem to its next, where no step is skipped."""
        if not self._periods:
            from ..summary import steps_per_engine_step

            self._periods = {name: math.ceil(1 / rate) for name, rate in steps_per_engine_step(engine).items()}
        return self._periods[name]


def _learning_rates(problem: Problem) -> dict[str, Tensor]:
    rates = [group["lr"] for group in problem.optimizer.param_groups if group.get("lr") is not None]
    names = ["lr"] if len(rates) == 1 else [f"lr {i}" for i in range(len(rates))]
    # A capturable optimizer keeps its rate in a tensor, which it will change in place.
    return {
        name: rate.detach().clone() if isinstance(rate, Tensor) else torch.tensor(rate, dtype=torch.float64)
        for name, rate in zip(names, rates, strict=True)
    }


def _norm(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    present = [t.coalesce().values() if t.is_sparse else t for t in tensors if t is not None]
    return norm(present) if present else torch.zeros((), device=device)
