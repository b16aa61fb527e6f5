"""Where a run computes."""

from __future__ import annotations

import torch

from ..hypergrad.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the current accelerator where there is one, else the CPU; anything else is a torch device.

    Raises:
        ConfigError: The device is not there.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}': torch finds no CUDA device here; use 'auto' or 'cpu' (engine.device)")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend refuses in a way of its own
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"device '{name}': torch cannot use it here ({reason}); use 'auto' or 'cpu' (engine.device)"
        ) from error
    return device
