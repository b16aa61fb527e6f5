"""Training samples of which some have a wrong label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ...hypergrad.errors import ConfigError


class NoisyLabels(TensorDataset):
    """Samples with the labels that training sees, and which of those are wrong.

    Args:
        inputs: One row a sample.
        labels: As training sees them.
        truth: The right ones. They are in no batch; they only say what to colour afterwards.

    Attributes:
        corrupted: Where the label is wrong.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, truth: Tensor) -> None:
        super().__init__(inputs, labels)
        self.corrupted = labels != truth


def flip_labels(labels: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Replace a share of the labels by another class, any of them with equal probability.

    Args:
        labels: From 0 to ``classes - 1``.
        share: How many, from 0 to 1.
        classes: How many there are.
        generator: Chooses which, and by what.

    Raises:
        ConfigError: The share is not one.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"noisy labels: the share to flip must be from 0 to 1, got {share}")
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    flipped = labels.clone()
    flipped[wrong] = (labels[wrong] + torch.randint(1, classes, wrong.shape, generator=generator)) % classes
    return flipped
