"""Seeds, precision and the tolerances, each named after its reason."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from multilevel.hypergrad import lazy_copies, tape
from multilevel.hypergrad.errors import forget_warnings
from multilevel.problems import step_graphs

EXACT = 1e-12
"""Algebra in float64: only rounding differs."""
CLOSED_FORM = 1e-10
"""A finite computation in float64 compared with its closed form."""
CONVERGED = 1e-8
"""An iterative solve run to convergence."""
FINITE_DIFFERENCE = 1e-6
"""A central difference in float64."""


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seed every generator, compute in float64, let each test see first warnings."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    forget_warnings()
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def young_heap() -> Iterator[None]:
    """Let the garbage collector look at what the test makes, and at nothing older: that takes a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no numbers while training, as on a GPU."""
    for module in (step_graphs, tape):
        monkeypatch.setattr(module, "is_readable", lambda tensor: False)


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy even small tensors lazily."""
    monkeypatch.setattr(lazy_copies, "SMALL", 0)
