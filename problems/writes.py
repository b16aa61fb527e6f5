"""How often tensors were written to in place. Autograd counts, but not writes through ``.data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def written(tensors: Sequence[Tensor | None]) -> int:
    """The writes to some tensors so far."""
    return sum([t._version for t in tensors if t is not None])


def written_in(batch: Any) -> int:
    """The writes to the tensors of a batch: a tensor, or tuples, lists and mappings of batches."""
    if isinstance(batch, Tensor):
        return batch._version
    if isinstance(batch, (tuple, list)):
        return sum([written_in(part) for part in batch])
    if isinstance(batch, Mapping):
        return sum([written_in(part) for part in batch.values()])
    return 0
