"""How often a classifier is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from ...problems.problem import Problem
from ...problems.to_device import to_device
from ..modes import evaluation_mode


def accuracy(problem: Problem, batches: Iterable[Any], predict: Callable[[Tensor], Tensor] | None = None) -> float:
    """The share of samples whose class is right, in evaluation mode.

    Args:
        problem: The classifier, on whose device the batches are wanted.
        batches: Of inputs and labels.
        predict: Class logits of given inputs; what the problem's ``forward`` gives by default.
    """
    right, total = 0, 0
    with evaluation_mode([problem.module]):
        for batch in batches:
            inputs, labels = to_device(batch, problem.device)
            right += int(((predict or problem)(inputs).argmax(dim=-1) == labels).sum())
            total += len(labels)
    return right / total
