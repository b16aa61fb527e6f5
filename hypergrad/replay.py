"""Random numbers that can be drawn again: evaluating a loss twice must see the same dropout masks, and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class RandomState:
    """The state of the generators of torch (CPU and the given device), numpy and random at one moment."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._torch = torch.get_rng_state()
        self._device_state = torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None
        self._numpy: Any = np.random.get_state()
        self._python = random.getstate()

    def restore(self) -> None:
        """Put every generator back to where it was."""
        torch.set_rng_state(self._torch)
        if self._device_state is not None:
            torch.cuda.set_rng_state(self._device_state, self._cuda)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


@contextmanager
def preserved_randomness(device: torch.device | None = None) -> Iterator[RandomState]:
    """Leave the generators as they were found, also when the body raises."""
    state = RandomState(device)
    try:
        yield state
    finally:
        state.restore()
