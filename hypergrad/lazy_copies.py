"""Copies that take no memory until they or their originals are written to.

torch leaves a lazy clone where its original is until one of the two may be written to, by whatever means (``.data`` as
well), and then gives that one memory of its own. So whatever lies where its copy does was not written to since.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .same_bits import PLAIN, SMALL
from .tensors import laid_out

try:
    from torch import _lazy_clone
    from torch._C import _storage_Use_Count as _use_count
except ImportError:  # private to torch
    _lazy_clone = None  # type: ignore[assignment]
if not hasattr(Tensor, "const_data_ptr"):  # torch cannot tell where a tensor is without parting it from its copies
    _lazy_clone = None  # type: ignore[assignment]

ALONE = 2
"""So often is the memory of a tensor referred to that no other lies in it: by the tensor, and by who counts."""


def copied(tensor: Tensor) -> Tensor:
    """A copy with the strides of the original: lazily where that is faster, and where nothing can tell."""
    if _lazy_clone is not None and _may_move(tensor):
        try:
            return _lazy_clone(tensor)
        except RuntimeError:  # its memory is not torch's own: shared between processes, or an array's
            pass
    return laid_out(tensor.clone(), tensor)


def parted(copies: Sequence[Tensor]) -> None:
    """Give lazy copies memory of their own, so that their originals stay where they are when they are written to."""
    for copy in copies:
        if type(copy) is Tensor:
            copy.data_ptr()


def _may_move(tensor: Tensor) -> bool:
    """Whether it is large, and no view nor array of it would stay behind where a write takes it elsewhere."""
    if tensor.numel() <= SMALL or type(tensor) not in PLAIN or not tensor.is_cpu:
        return False
    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
        return False
    storage = tensor.untyped_storage()
    return storage.nbytes() == tensor.nbytes and _use_count(storage._cdata) == ALONE
