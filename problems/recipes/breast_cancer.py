"""scikit-learn's breast cancer data in three parts, with columns of pure noise among its 30 measurements.

100 samples to train on, 250 to validate, 219 to test. The noise is what a regularisation by feature has to find out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...hypergrad.errors import ConfigError
from .extras import extra

TRAIN, VALIDATION = 100, 250
MEASUREMENTS = 30

Batch = tuple[Tensor, Tensor]
"""Inputs, and labels 0.0 (malignant) or 1.0 (benign)."""


def train(*, noise_columns: int = 30, seed: int | None = None) -> list[Batch]:
    """The training samples, in one batch.

    Args:
        noise_columns: Columns of standard normal numbers behind the measurements; the same in all three parts.
        seed: Decides who is in which part, and the noise; torch's global seed by default, hence the run's.

    Raises:
        ConfigError: ``noise_columns`` is negative, or scikit-learn is not installed.
    """
    return [_parts(noise_columns, seed)[0]]


def validation(*, noise_columns: int = 30, seed: int | None = None) -> list[Batch]:
    """The validation samples, in one batch; arguments as for :func:`train`."""
    return [_parts(noise_columns, seed)[1]]


def held_out(*, noise_columns: int = 30, seed: int | None = None) -> list[Batch]:
    """The test samples, in one batch; arguments as for :func:`train`."""
    return [_parts(noise_columns, seed)[2]]


def _parts(noise_columns: int, seed: int | None) -> list[Batch]:
    if noise_columns < 0:
        raise ConfigError(f"breast cancer: noise_columns must be at least 0, got {noise_columns}")
    data = extra("sklearn.datasets", "the breast cancer data").load_breast_cancer()
    inputs, labels = torch.as_tensor(data.data), torch.as_tensor(data.target)
    # A generator of its own: the three functions, called one after the other, must deal out the same parts.
    generator = torch.Generator().manual_seed(torch.initial_seed() if seed is None else seed)
    order = torch.randperm(len(labels), generator=generator)
    noise = torch.randn(len(labels), noise_columns, generator=generator, dtype=inputs.dtype)
    inputs = torch.cat([inputs, noise], dim=1)
    deviation, mean = torch.std_mean(inputs[order[:TRAIN]], dim=0)
    inputs = ((inputs - mean) / deviation).to(torch.get_default_dtype())
    labels = labels.to(inputs.dtype)
    return [(inputs[i], labels[i]) for i in order.tensor_split((TRAIN, TRAIN + VALIDATION))]
