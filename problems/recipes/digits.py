"""scikit-learn's handwritten digits with wrong training labels, a few clean samples apart, and a test set.

The 1797 images (8 x 8 pixels, ten classes) are always divided in the same way: 100 clean samples, 10 of each class, 597
to test with, 1100 to train on. Which training labels are wrong follows the seed.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from ...hypergrad.errors import ConfigError

CLASSES, CLEAN_PER_CLASS, TEST = 10, 10, 597
SPLIT_SEED = 1797
"""Every part of a run, whatever its seed, must agree on who is in which set."""

Samples = tuple[Tensor, Tensor]
"""Inputs and labels."""


class NoisyLabels(TensorDataset):
    """Samples of which some have a wrong label.

    Args:
        inputs: One row a sample.
        labels: As the training sees them.
        truth: The right ones; training never reads them.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, truth: Tensor) -> None:
        super().__init__(inputs, labels)
        self.corrupted = labels != truth


def noisy_train(batch_size: int = 100, *, flip: float = 0.4, seed: int | None = None) -> DataLoader[Samples]:
    """The 1100 training samples, reshuffled every epoch.

    Args:
        batch_size: Samples a batch; those left over at the end of an epoch are dropped.
        flip: The share of samples whose label is replaced by another class, any of the nine with equal probability.
        seed: Decides which labels and in what order; torch's global seed by default, hence that of the run.

    Raises:
        ConfigError: ``flip`` is no share, or scikit-learn is not installed.
    """
    if not 0 <= flip <= 1:
        raise ConfigError(f"digits: flip is a share of the labels, from 0 to 1, got {flip}")
    inputs, truth = _split()["train"]
    generator = _generator(seed)
    wrong = torch.randperm(len(truth), generator=generator)[: round(flip * len(truth))]
    labels = truth.clone()
    labels[wrong] = (truth[wrong] + torch.randint(1, CLASSES, wrong.shape, generator=generator)) % CLASSES
    return _shuffled(NoisyLabels(_numbers(inputs), labels, truth), batch_size, generator)


def clean(batch_size: int = 100, *, seed: int | None = None) -> DataLoader[Samples]:
    """The 100 samples whose labels are known to be right.

    Args:
        batch_size: Samples a batch.
        seed: Decides their order; torch's global seed by default.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    inputs, labels = _split()["clean"]
    return _shuffled(TensorDataset(_numbers(inputs), labels), batch_size, _generator(seed))


def test() -> list[Samples]:
    """The 597 test samples, in one batch.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    inputs, labels = _split()["test"]
    return [(_numbers(inputs), labels)]


@lru_cache(maxsize=1)
def _split() -> dict[str, Samples]:
    """The three sets, standardised by what the training set looks like."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ConfigError("the digits come with scikit-learn; pip install 'multilevel[examples]'") from error
    found = load_digits()
    inputs, labels = torch.as_tensor(found.data, dtype=torch.float64), torch.as_tensor(found.target)
    order = torch.randperm(len(labels), generator=_generator(SPLIT_SEED))
    first = torch.cat([order[labels[order] == c][:CLEAN_PER_CLASS] for c in range(CLASSES)])
    rest = order[~torch.isin(order, first)]
    parts = {"clean": first, "test": rest[:TEST], "train": rest[TEST:]}
    # One mean and deviation for all pixels: by pixel, those that are nearly always blank would become huge.
    deviation, mean = torch.std_mean(inputs[parts["train"]])
    return {name: ((inputs[rows] - mean) / deviation, labels[rows]) for name, rows in parts.items()}


def _numbers(inputs: Tensor) -> Tensor:
    return inputs.to(torch.get_default_dtype())


def _generator(seed: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(torch.initial_seed() if seed is None else seed)


def _shuffled(dataset: TensorDataset, batch_size: int, generator: torch.Generator) -> DataLoader[Samples]:
    # A list of indices at once: one lookup a batch, and none of the default collation sample by sample.
    rows = BatchSampler(RandomSampler(dataset, generator=generator), batch_size, drop_last=True)
    return DataLoader(dataset, sampler=rows, batch_size=None, generator=generator)
