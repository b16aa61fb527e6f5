"""Ten thousand steps hold no more memory than two thousand: nothing of an upper step outlives it."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Engine, EngineConfig

from .givens import Given, Vector, pair

NEEDS_COMPILER = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler here")
PAGE = 4096
GROWTH = 4 * 2**20
"""What an allocator may still ask for after two thousand steps, in bytes."""


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def alive() -> int:
    gc.collect()
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


def engine_of(method: Any, *, compile: bool) -> Engine:
    def lower(p: Given, batch: Any) -> Tensor:
        return torch.cosh(p.module() - p.upper()).sum()

    def upper(p: Given, batch: Any) -> Tensor:
        return (p.lower() - 1).square().sum()

    modules = (Vector(*torch.linspace(0, 1, 50).tolist()), Vector(*torch.zeros(50).tolist()))
    settings = EngineConfig(train_iters=10**9, compile=compile)
    return pair(lower, upper, method=method, modules=modules, steps=2, engine=settings)


@pytest.mark.slow
@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)], ids=["eager", "compiled"])
@pytest.mark.parametrize("method", ["darts", "sama", "identity", "cg", "unroll"])
def test_memory_stays_flat(method: str, compiled: bool) -> None:
    engine = engine_of(method, compile=compiled)
    counts, sizes = [], []
    for steps in (2000, 8000):
        for _ in range(steps):
            engine.step()
        counts.append(alive())
        sizes.append(resident())
    assert all(found.reason is None for found in engine.compilations.values())
    # What recording left behind may be collected late.
    assert counts[1] == counts[0] or (compiled and counts[1] < counts[0])
    assert sizes[1] - sizes[0] < GROWTH
