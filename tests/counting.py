"""Counting what one hypergradient takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from multilevel.hypergrad import autograd
from multilevel.hypergrad.registry import available

from .generic import Generic


@dataclass
class Count:
    """Calls between two moments.

    Attributes:
        losses: Evaluations of a loss.
        gradients: Backward passes.
        recorded: Those of them that can be differentiated again.
        pulls: Pull backs, of all problems.
    """

    losses: int = 0
    gradients: int = 0
    recorded: int = 0
    pulls: int = 0


@contextmanager
def counting() -> Iterator[Count]:
    """Count the calls within the block, of the problems of :mod:`generic`."""
    count = Count()
    grad, step = torch.autograd.grad, Generic.training_step

    def counted_grad(*args: Any, **kwargs: Any) -> Any:
        count.gradients += 1
        count.recorded += bool(kwargs.get("create_graph", False))
        return grad(*args, **kwargs)

    def counted_step(self: Generic, batch: Any) -> Any:
        count.losses += 1
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", counted_grad)
        patch.setattr(autograd, "_engine_run_backward", None)  # all gradients by the function that is counted
        patch.setattr(Generic, "training_step", counted_step)
        for method in available().values():
            patch.setattr(method, "pull_back", _counted(method.pull_back, count))
        yield count


def _counted(pull_back: Any, count: Count) -> Any:
    def counted(self: Any, at: Any, cotangent: Any) -> Any:
        count.pulls += 1
        return pull_back(self, at, cotangent)

    return counted
