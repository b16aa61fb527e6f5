"""Training steps that write to what they are given: they are evaluated again, and would do so again.

Autograd counts writes in place, but not those through ``.data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..hypergrad.errors import ProblemError


def written(tensors: Sequence[Tensor | None]) -> int:
    """The writes to some tensors so far."""
    return sum([t._version for t in tensors if t is not None])


def written_in(batch: Any) -> int:
    """The writes to the tensors of a batch: a tensor, or tuples, lists and mappings of batches."""
    if batch is None:
        return 0
    if isinstance(batch, Tensor):
        return batch._version
    if isinstance(batch, (tuple, list)):
        return sum([part._version if isinstance(part, Tensor) else written_in(part) for part in batch])
    if isinstance(batch, Mapping):
        return sum([written_in(part) for part in batch.values()])
    return 0


def batch_error(name: str) -> ProblemError:
    """Of a problem whose training step writes to its batch."""
    return ProblemError(
        f"problem '{name}': training_step writes to its batch in place, and is evaluated on it again when a problem "
        "above is differentiated; compute another tensor instead, as in x = x / 255"
    )


def batch_lost_error(name: str) -> ProblemError:
    """Of a problem whose batch was written to after it was trained on."""
    return ProblemError(
        f"problem '{name}': its batch was written to after it was trained on, and a problem above evaluates its "
        "training_step on it again; let each get_batch() return tensors of its own (x.clone() of a buffer that is "
        "filled anew)"
    )


def parameters_error(name: str) -> ProblemError:
    """Of a problem whose training step writes to its parameters where a derivative evaluates it."""
    return ProblemError(
        f"problem '{name}': training_step writes to its parameters, and is evaluated again when a problem above is "
        "differentiated; constrain them in param_callback, which is called after each step"
    )
