"""What problems validate by themselves: the means of their ``validation_step`` over their validation data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import ProblemError
from ..problems.problem import Problem
from ..problems.to_device import to_device


def validate_problems(problems: Iterable[Problem]) -> dict[str, Tensor]:
    """The metrics of every problem that has a ``validation_step``, as ``<problem>/<name>``.

    Raises:
        ProblemError: A ``validation_step`` returned something that is no metric.
    """
    found: dict[str, Tensor] = {}
    for problem in problems:
        if problem.validates:
            found |= {f"{problem.name}/{name}": value for name, value in _means(problem).items()}
    return found


def _means(problem: Problem) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for batch in _batches(problem):
        with problem.level.training_step.precision():
            metrics = _metrics(problem, batch)
        size = _size(batch)
        for name, value in metrics.items():
            sums[name] = sums[name] + size * value if name in sums else size * value
            counts[name] = counts.get(name, 0) + size
    return {name: total / counts[name] for name, total in sums.items()}


def _batches(problem: Problem) -> Iterator[Any]:
    if problem.validation_data_loader is None:
        yield None
        return
    for batch in problem.validation_data_loader:
        yield to_device(batch, problem.device)


def _metrics(problem: Problem, batch: Any) -> dict[str, Tensor]:
    result = problem.validation_step(batch)
    given = result if isinstance(result, Mapping) else {} if result is None else {"loss": result}
    metrics = {}
    for name, value in given.items():
        tensor = torch.as_tensor(value).detach()
        if tensor.numel() != 1:
            raise ProblemError(
                f"problem '{problem.name}': validation_step returned '{name}' of shape {tuple(tensor.shape)}; expected "
                "one number for the batch, for example with .mean()"
            )
        metrics[str(name)] = tensor.reshape(()).to(torch.get_default_dtype())
    return metrics


def _size(batch: Any) -> int:
    """Examples in a batch: the length of the first tensor in it, 1 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    return next((_size(part) for part in parts if isinstance(part, (Tensor, Mapping, list, tuple))), 1)
