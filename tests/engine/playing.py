"""What tests of environments in checkpoints share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from multilevel.engine.checkpoints.file import read_checkpoint, write_checkpoint


def as_data(value: Any) -> Any:
    """Arrays as tensors, for :func:`differences`."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        return as_data(array.tolist()) if array.dtype.kind in "OUS" else torch.from_numpy(array.copy())
    if isinstance(value, dict):
        return {key: as_data(part) for key, part in value.items()}
    return [as_data(part) for part in value] if isinstance(value, (list, tuple)) else value


def through_a_file(state: Any, folder: Path) -> Any:
    write_checkpoint(folder / "state.pt", {"environment": state}, step=0)
    return read_checkpoint(folder / "state.pt")["environment"]
