"""scikit-learn's handwritten digits, divided once: as numbers, or as tokens for a transformer."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from .case import Setting

CLASSES, PIXELS, SHADES, TRAIN = 10, 64, 17, 1100
Batch: TypeAlias = tuple[Tensor, Tensor]


def digits(setting: Setting, *, flip: float = 0.0) -> tuple[Batch, Batch]:
    """1100 samples to train on and 697 others; each is 64 numbers.

    Args:
        setting: Where to put them, and in which dtype.
        flip: The share of training labels that is redrawn.
    """
    return _divided(_scaled(setting.device, setting.dtype), _labels(setting.device, flip))


def digit_tokens(setting: Setting, *, flip: float = 0.0) -> tuple[Batch, Batch]:
    """The same, each as 64 tokens: the shades of its pixels, out of 17."""
    return _divided(_tokens(setting.device), _labels(setting.device, flip))


def cut(data: Batch, size: int) -> list[Batch]:
    """Whole batches of a size, in order; one batch, for which the data is gone around, where that is larger."""
    inputs, labels = data
    if size > len(labels):
        around = torch.arange(size, device=labels.device) % len(labels)
        return [(inputs[around], labels[around])]
    return [(inputs[i : i + size], labels[i : i + size]) for i in range(0, len(labels) - size + 1, size)]


def _divided(inputs: Tensor, labels: Tensor) -> tuple[Batch, Batch]:
    return (inputs[:TRAIN], labels[:TRAIN]), (inputs[TRAIN:], labels[TRAIN:])


# Everyone reads the same tensors, which are there before memory is measured.
@cache
def _scaled(device: torch.device, dtype: torch.dtype) -> Tensor:
    deviation, mean = torch.std_mean(_digits()[0].double())
    return ((_digits()[0].double() - mean) / deviation).to(device, dtype)


@cache
def _tokens(device: torch.device) -> Tensor:
    return _digits()[0].to(device)


@cache
def _labels(device: torch.device, flip: float) -> Tensor:
    """Of the samples to train on, a share is redrawn at random."""
    labels = _digits()[1].clone()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(TRAIN, generator=generator) < flip
    labels[:TRAIN][wrong] = torch.randint(CLASSES, (int(wrong.sum()),), generator=generator)
    return labels.to(device)


@cache
def _digits() -> Batch:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    inputs, labels = torch.as_tensor(loaded.data).long(), torch.as_tensor(loaded.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return inputs[order], labels[order]
