"""Peak memory: bytes of tensors that are held at once, as torch's allocators report them.

On the CPU every allocation and release is read from the profiler, on a GPU the caching allocator keeps a maximum. Both
are exact and free of noise, unlike the resident memory of the process; what Python objects take is not in them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from .case import Builder

STEPS = 6
"""Steps of the top problem that are followed, from the first: what is kept between steps, programs among it,
is there by then."""


def held(build: Builder, device: torch.device) -> int:
    """Bytes that are held once it is built: parameters and data."""
    kept = []

    def only_build() -> None:
        kept.append(build())

    return _followed(only_build, device)[1]


def peak(build: Builder, device: torch.device) -> int:
    """Most bytes held at once while it is built and stepped."""

    def build_and_step() -> None:
        run = build()
        for _ in range(STEPS):
            run.step()

    return _followed(build_and_step, device)[0]


def _followed(action: Callable[[], None], device: torch.device) -> tuple[int, int]:
    """(most bytes held, bytes held at the end), beyond what was there before."""
    gc.collect()  # what is released inside should have been allocated inside
    return _on_gpu(action) if device.type == "cuda" else _on_cpu(action)


def _on_gpu(action: Callable[[], None]) -> tuple[int, int]:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    action()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before


def _on_cpu(action: Callable[[], None]) -> tuple[int, int]:
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most, now


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler tells the terminal, past Python, that it starts and stops."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
