"""A position inside an epoch, written down and found again: what comes next is what would have come."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from multilevel.hypergrad.errors import ProblemError
from multilevel.hypergrad.replay import RandomState
from multilevel.problems.batches import Batches
from multilevel.problems.source import Source

CPU = torch.device("cpu")
DATA = TensorDataset(torch.arange(20.0))


class Augmented(Dataset[Tensor]):
    """Samples that draw random numbers when they are read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> Tensor:
        return torch.tensor(i) + torch.rand(()) + random.random() + np.random.rand()


class Stream(IterableDataset[Tensor]):
    """A stream of its own order."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.arange(9.0))


class NumpyOrder:
    """A loader that shuffles by numpy and Python."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[int]:
        order = np.random.permutation(6).tolist()
        random.shuffle(order)
        return iter(order)


class OwnState:
    """A loader that keeps its own position, as torchdata's does."""

    def __init__(self) -> None:
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[int]:
        while self.at < 5:
            self.at += 1
            yield self.at
        self.at = 0


def distributed() -> DataLoader[Any]:
    return DataLoader(DATA, 3, sampler=DistributedSampler(DATA, num_replicas=2, rank=1, shuffle=True, seed=3))


def stateful(**options: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(DATA, 3, shuffle=True, **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2, 3, 4, 5],
    "in order": lambda: DataLoader(DATA, 3),
    "shuffled": lambda: DataLoader(DATA, 3, shuffle=True),
    "generator of its own": lambda: DataLoader(DATA, 3, shuffle=True, generator=torch.Generator().manual_seed(7)),
    "sampler's generator": lambda: DataLoader(
        DATA, 4, sampler=RandomSampler(DATA, replacement=True, generator=torch.Generator().manual_seed(1))
    ),
    "weighted": lambda: DataLoader(DATA, 4, sampler=WeightedRandomSampler(torch.ones(20), 20)),
    "batch sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 3, drop_last=True)),
    "sampler of a sampler": lambda: DataLoader(
        DATA,
        sampler=BatchSampler(RandomSampler(DATA, generator=torch.Generator().manual_seed(2)), 3, drop_last=False),
        batch_size=None,
    ),
    "augmented": lambda: DataLoader(Augmented(), 2, shuffle=True),
    "stream": lambda: DataLoader(Stream(), 2),
    "numpy": NumpyOrder,
    "own state": OwnState,
    "several": lambda: (DataLoader(DATA, 3, shuffle=True), [1, 2], NumpyOrder()),
    "distributed": distributed,
    "torchdata": stateful,
    "torchdata, workers": lambda: stateful(num_workers=1),
    "workers": lambda: DataLoader(Augmented(), 2, shuffle=True, num_workers=1),
    "persistent workers": lambda: DataLoader(DATA, 3, shuffle=True, num_workers=1, persistent_workers=True),
}


def seeded(make: Callable[[], Any]) -> Batches:
    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    loader = make()
    batches: Batches

    def on_epoch() -> None:
        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            loader.sampler.set_epoch(batches.epoch)

    batches = Batches("p", loader, on_epoch)
    return batches


def draw(batches: Batches, count: int) -> list[Any]:
    """Batches, with other random numbers drawn in between as training does."""
    found = []
    for _ in range(count):
        batch = batches.draw(CPU)
        found.append((batch, torch.rand(()), np.random.rand(), random.random()))
    return found


# torchdata 0.11, with torch 2.13.
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("taken", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("name", LOADERS)
def test_a_new_loader_goes_on_where_the_old_one_was(name: str, taken: int) -> None:
    whole = seeded(LOADERS[name])
    draw(whole, taken)
    state, now = whole.state_dict(), RandomState(CPU, host=True)
    expected = draw(whole, 12)

    resumed = Batches("p", LOADERS[name](), lambda: None)
    if name == "distributed":
        resumed = seeded(LOADERS[name])
    torch.rand(3)
    random.random()
    before = torch.get_rng_state()
    resumed.load_state_dict(state, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    now.restore()
    got = draw(resumed, 12)

    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert (resumed.epoch, resumed.position) == (whole.epoch, whole.position)


def test_nothing_is_read_to_pass_over_batches() -> None:
    reads: list[int] = []

    class Counted(Augmented):
        def __getitem__(self, i: int) -> Tensor:
            reads.append(i)
            return super().__getitem__(i)

    batches = Batches("p", DataLoader(Counted(), 2, shuffle=True), lambda: None)
    draw(batches, 5)
    state = batches.state_dict()
    reads.clear()
    Batches("p", DataLoader(Counted(), 2, shuffle=True), lambda: None).load_state_dict(state, CPU)
    assert reads == []


def test_other_data_is_noticed() -> None:
    batches = Batches("p", DataLoader(DATA, 2), lambda: None)
    draw(batches, 8)
    with pytest.raises(ProblemError, match="'p': its data has fewer than the 8 batches"):
        Batches("p", DataLoader(DATA, 5), lambda: None).load_state_dict(batches.state_dict(), CPU)


def test_a_generator_goes_forward_only() -> None:
    numbers = (i for i in range(10))
    batches = Batches("p", numbers, lambda: None)
    draw(batches, 3)
    state = batches.state_dict()
    fresh = Batches("p", (i for i in range(10)), lambda: None)
    fresh.load_state_dict(state, CPU)
    assert fresh.draw(CPU) == 3


def test_workers_are_no_part_of_a_circle_that_is_dropped() -> None:
    """Where the garbage collector found them in it, it would wait 5 s for each."""
    source = Source("p", DataLoader(DATA, 3, num_workers=2))
    circle: list[Any] = [source]
    circle += [circle]
    source.next()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    del source, circle
    gc.collect()
    gc.set_debug(0)
    found = {type(garbage).__name__ for garbage in gc.garbage}
    for garbage in gc.garbage:
        if isinstance(garbage, Source):
            garbage._hold(None)
    gc.garbage.clear()
    assert "Source" in found
    assert "_MultiProcessingDataLoaderIter" not in found
