"""One seed for every generator."""

from __future__ import annotations

import random

import torch


def seed_everything(seed: int | None) -> None:
    """Seed Python, torch and NumPy; ``None`` leaves them alone."""
    if seed is None:
        return
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        import numpy as np
    except ModuleNotFoundError:  # torch runs without it
        return
    np.random.seed(seed)
