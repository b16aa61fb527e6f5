"""Averages over processes, where there are several, and which of how many this one is."""

from __future__ import annotations

import torch.distributed as dist

from ..hypergrad.tensors import Tensors


def mean_over_processes(tensors: Tensors) -> Tensors:
    """The mean of each tensor over the processes of the default group; the tensors themselves where there is none."""
    if not dist.is_available() or not dist.is_initialized():
        return tensors
    averaged = tuple(t.clone() for t in tensors)
    for tensor in averaged:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return averaged


def is_first_process() -> bool:
    """Whether this process is the one that writes files and talks to people: the first, or the only one."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0


def process_count() -> int:
    """How many processes the default group has; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
