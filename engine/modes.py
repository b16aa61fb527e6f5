"""Training and evaluation mode of modules, put back exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients; every submodule goes back to the mode it was in, also after an error."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for part, _ in before:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training
