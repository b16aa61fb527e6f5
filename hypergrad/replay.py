"""Random numbers that can be drawn again: a loss evaluated twice must see the same dropout masks and leave no trace."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


class RandomState:
    """The state of the generators of torch (the CPU's and the given device's) at one moment.

    Args:
        device: Device whose generator is read besides the CPU's.
        host: Read numpy's and Python's generators too. That costs 0.1 ms, as much as a small training step, so the
            engine asks for it only where it saw a problem draw from them.
    """

    def __init__(self, device: torch.device, *, host: bool) -> None:
        self._device = device if device.type == "cuda" else None
        self._torch = torch.get_rng_state()
        self._on_device = torch.cuda.get_rng_state(self._device) if self._device is not None else None
        self._host = (_numpy_state(), random.getstate()) if host else None

    def restore(self) -> None:
        """Put every generator that was read back to where it was."""
        torch.set_rng_state(self._torch)
        if self._on_device is not None and self._device is not None:
            torch.cuda.set_rng_state(self._on_device, self._device)
        if self._host is not None:
            numpy_state, python_state = self._host
            if numpy_state is not None:
                sys.modules["numpy"].random.set_state(numpy_state)
            random.setstate(python_state)

    def is_current(self) -> bool:
        """Whether no generator that was read has moved since."""
        if not torch.equal(self._torch, torch.get_rng_state()) or self.host_moved():
            return False
        if self._on_device is None or self._device is None:
            return True
        return torch.equal(self._on_device, torch.cuda.get_rng_state(self._device))

    def host_moved(self) -> bool:
        """Whether numpy's or Python's generator has moved since (``host=True`` only)."""
        if self._host is None:
            return False
        return self._host[1] != random.getstate() or _differ(self._host[0], _numpy_state())


def _numpy_state() -> Any:
    # torch runs without numpy: a program that did not import it draws nothing from it.
    numpy = sys.modules.get("numpy")
    return numpy.random.get_state() if numpy is not None else None


def _differ(before: Any, now: Any) -> bool:
    if before is None or now is None:
        return before is not now
    return before[2:] != now[2:] or bool((before[1] != now[1]).any())
