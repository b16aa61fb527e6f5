"""What problems validate by themselves: the means of their ``validation_step`` over their validation data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import MultilevelError, ProblemError
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


def own_metrics(engine: str, result: Any) -> dict[str, Any]:
    """What ``Engine.validation`` returned, as a dict.

    Args:
        engine: The engine's class, for the error message.
        result: What it returned.

    Raises:
        ProblemError: That is no mapping.
    """
    if result is None:
        return {}
    if isinstance(result, Mapping):
        return dict(result)
    shape = f" of shape {tuple(result.shape)}" if isinstance(result, Tensor) else ""
    raise ProblemError(
        f"{engine}.validation must return a mapping of names to numbers, such as {{'accuracy': 0.9}}, or None; got "
        f"{type(result).__name__}{shape}"
    )


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
    result = _result(problem, batch)
    given = result if isinstance(result, Mapping) else {} if result is None else {"loss": result}
    metrics = {}
    for name, value in given.items():
        tensor = _tensor(problem, name, value)
        if tensor.numel() != 1:
            raise ProblemError(
                f"problem '{problem.name}': validation_step returned '{name}' of shape {tuple(tensor.shape)}; expected "
                "one number for the batch, for example with .mean()"
            )
        metrics[str(name)] = tensor.reshape(()).to(torch.get_default_dtype())
    return metrics


def _result(problem: Problem, batch: Any) -> Any:
    try:
        return problem.validation_step(batch)
    except MultilevelError:
        raise
    except Exception as error:
        if problem.validation_data_loader is not None:
            raise
        raise ProblemError(
            f"problem '{problem.name}': validation_step raised {type(error).__name__}: {error}. Its batch was None, "
            f"because problem '{problem.name}' has no validation_data_loader; if it reads one, give it that"
        ) from error


def _tensor(problem: Problem, name: Any, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ProblemError(
            f"problem '{problem.name}': validation_step must return one number for the batch as '{name}', got "
            f"{type(value).__name__} ({error})"
        ) from error


def _size(batch: Any) -> int:
    """Examples in a batch: the length of the first tensor in it, 1 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    return next((_size(part) for part in parts if isinstance(part, (Tensor, Mapping, list, tuple))), 1)
