"""Whether two tensors in the host's memory are the same, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import numpy as np
except ImportError:  # torch does without it, and so does this
    np = None  # type: ignore[assignment]

AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
FEW, CHUNK = 2**14, 2**18
"""Entries that ``torch.equal`` compares as fast; entries that stay in a cache meanwhile."""


def same_bits(x: Tensor, y: Tensor) -> bool:
    """``torch.equal`` of tensors of one shape and dtype, in less than half of its time where they are large.

    Where they are, not-a-number is equal to itself, and 0 is not equal to -0.
    """
    integers = AS_INTEGERS.get(x.element_size())
    if x.numel() <= FEW or np is None or integers is None or not (x.is_contiguous() and y.is_contiguous()):
        return torch.equal(x, y)
    a, b = (t.detach().view(-1).view(integers).numpy() for t in (x, y))
    return all(np.array_equal(a[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(a), CHUNK))
