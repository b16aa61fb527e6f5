"""Random numbers that can be drawn again: a loss evaluated twice must see the same dropout masks and leave no trace."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from typing_extensions import Self


class RandomState:
    """The state of the generators of torch (the CPU's and the given device's) at one moment.

    Args:
        device: Device whose generator is read besides the CPU's, if it is another one.
        host: Read numpy's and Python's generators too. That costs 0.1 ms, as much as a small training step, so the
            engine asks for it only where it saw a problem draw from them.
    """

    __slots__ = ("_device", "_host", "_on_device", "_torch")

    def __init__(self, device: torch.device | None, *, host: bool) -> None:
        self._device = device if device is not None and device.type != "cpu" else None
        self._torch = torch.default_generator.get_state()  # what torch.get_rng_state() calls
        self._on_device = None if self._device is None else _device_state(self._device)
        self._host = (_numpy_state(), random.getstate()) if host else None

    def restore(self) -> None:
        """Put every generator that was read back to where it was."""
        torch.default_generator.set_state(self._torch)
        if self._on_device is not None and self._device is not None:
            _set_device_state(self._on_device, self._device)
        if self._host is not None:
            numpy_state, python_state = self._host
            if numpy_state is not None:
                _numpy_random().set_state(numpy_state)
            random.setstate(python_state)

    def is_current(self) -> bool:
        """Whether no generator that was read has moved since."""
        if not torch.equal(self._torch, torch.default_generator.get_state()) or self.host_moved():
            return False
        if self._on_device is None or self._device is None:
            return True
        return torch.equal(self._on_device, _device_state(self._device))

    def host_moved(self) -> bool:
        """Whether numpy's or Python's generator has moved since (``host=True`` only)."""
        if self._host is None:
            return False
        return self._host[1] != random.getstate() or _differ(self._host[0], _numpy_state())

    def forget_host(self) -> None:
        """Leave numpy's and Python's generators alone from now on."""
        self._host = None

    def state_dict(self) -> dict[str, Any]:
        """The states as tensors, numbers and tuples."""
        numpy_state, python_state = self._host if self._host is not None else (None, None)
        if numpy_state is not None:
            kind, key, *rest = numpy_state
            numpy_state = (kind, torch.from_numpy(key.astype("int64")), *rest)
        return {"torch": self._torch, "device": self._on_device, "numpy": numpy_state, "python": python_state}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> Self:
        """What :meth:`state_dict` was taken of; the device's generator only where it is of the same kind."""
        new = cls.__new__(cls)
        new._torch, new._on_device = state["torch"], state["device"]
        new._device = device if device.type != "cpu" and state["device"] is not None else None
        numpy_state = state["numpy"]
        if numpy_state is not None:
            kind, key, *rest = numpy_state
            numpy_state = (kind, key.numpy().astype("uint32"), *rest)
        new._host = (numpy_state, state["python"]) if state["python"] is not None else None
        return new


def _device_state(device: torch.device) -> torch.Tensor:
    module = torch.get_device_module(device)
    state: torch.Tensor = module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)
    return state


def _set_device_state(state: torch.Tensor, device: torch.device) -> None:
    module = torch.get_device_module(device)
    if device.type == "mps":
        module.set_rng_state(state)
    else:
        module.set_rng_state(state, device)


def _numpy_random() -> Any:
    # A checkpoint may have numpy's state where this process did not import it yet.
    import numpy as np

    return np.random


def _numpy_state() -> Any:
    # torch runs without numpy: a program that did not import it draws nothing from it.
    return sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None


def _differ(before: Any, now: Any) -> bool:
    if before is None or now is None:
        return before is not now
    return before[2:] != now[2:] or bool((before[1] != now[1]).any())
