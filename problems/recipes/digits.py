"""scikit-learn's handwritten digits: training labels of which many are wrong, a few clean samples, and a test set.

The 1797 images (8 x 8 pixels, ten classes) are always divided in the same way: 100 clean samples, 10 of each class; 597
to test with; 1100 to train on. Which training labels are wrong follows the seed.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from .extras import extra
from .noisy_labels import NoisyLabels, flip_labels

CLASSES, CLEAN_PER_CLASS, TEST = 10, 10, 597
SPLIT_SEED = 1797
"""Not the run's: the parts of a run are built one by one, and runs that are compared must share a test set."""

Batch = tuple[Tensor, Tensor]
"""Inputs and labels."""


def noisy_train(batch_size: int = 100, *, flip: float = 0.4, seed: int | None = None) -> DataLoader[tuple[Tensor, ...]]:
    """The 1100 training samples, in another order every epoch.

    Args:
        batch_size: Samples a batch; those left over at the end of an epoch are dropped.
        flip: The share of labels that is replaced by another class, any of the nine with equal probability.
        seed: Decides which labels, and the order; torch's global seed by default, hence the run's.

    Raises:
        ConfigError: ``flip`` is no share, or scikit-learn is not installed.
    """
    inputs, truth = _split("train")
    generator = _generator(seed)
    labels = flip_labels(truth, flip, CLASSES, generator)
    return _shuffled(NoisyLabels(inputs, labels, truth), batch_size, generator)


def clean(batch_size: int = 100, *, seed: int | None = None) -> DataLoader[tuple[Tensor, ...]]:
    """The 100 samples whose labels are known to be right.

    Args:
        batch_size: Samples a batch.
        seed: Decides their order; torch's global seed by default.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    return _shuffled(TensorDataset(*_split("clean")), batch_size, _generator(seed))


def held_out() -> list[Batch]:
    """The 597 test samples, in one batch.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    return [_split("test")]


def _split(part: str) -> Batch:
    inputs, labels = _parts()[part]
    return inputs.to(torch.get_default_dtype()), labels


@lru_cache(maxsize=1)
def _parts() -> dict[str, Batch]:
    digits = extra("sklearn.datasets", "the digits").load_digits()
    inputs, labels = torch.as_tensor(digits.data, dtype=torch.float64), torch.as_tensor(digits.target)
    order = torch.randperm(len(labels), generator=_generator(SPLIT_SEED))
    clean = torch.cat([order[labels[order] == c][:CLEAN_PER_CLASS] for c in range(CLASSES)])
    rest = order[~torch.isin(order, clean)]
    rows = {"clean": clean, "test": rest[:TEST], "train": rest[TEST:]}
    # One mean and one deviation for all pixels: by itself, a pixel that is nearly always blank would become huge.
    deviation, mean = torch.std_mean(inputs[rows["train"]])
    return {part: ((inputs[i] - mean) / deviation, labels[i]) for part, i in rows.items()}


def _generator(seed: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(torch.initial_seed() if seed is None else seed)


def _shuffled(dataset: TensorDataset, batch_size: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, ...]]:
    # A batch's rows at once: one lookup, where the default would look up and collate sample by sample.
    rows = BatchSampler(RandomSampler(dataset, generator=generator), batch_size, drop_last=True)
    return DataLoader(dataset, sampler=rows, batch_size=None, generator=generator)
