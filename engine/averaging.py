"""What is said where several processes train, and nothing makes them train one model."""

from __future__ import annotations

from collections.abc import Iterable

from ..hypergrad.errors import NumericsWarning, warn_once
from ..problems.problem import Problem
from ..problems.processes import is_first_process, process_count


def warn_of_processes(problems: Iterable[Problem]) -> None:
    """Warn that nothing is averaged between processes, unless some problem edits its gradients itself."""
    count = process_count()
    if count > 1 and is_first_process() and not any(problem.edits_gradients for problem in problems):
        warn_once(
            "processes",
            f"Engine: this process is one of a torch.distributed group of {count}, and an engine averages nothing "
            "between them: each trains a model of its own, and only that of the first is saved. To train one model, "
            "average the gradients in grad_callback() of every problem: for p in self.parameters: "
            "dist.all_reduce(p.grad, dist.ReduceOp.SUM); p.grad /= dist.get_world_size()",
            NumericsWarning,
        )
