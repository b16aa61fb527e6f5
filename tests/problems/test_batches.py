"""Training data: any iterable, without end, looked at without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler

from multilevel.hypergrad.errors import ConfigError, ProblemError
from multilevel.problems.batches import Batches

from ..givens import Given, alone, assert_same, square

CPU = torch.device("cpu")
DATA = TensorDataset(torch.arange(10.0), torch.arange(10))


class Stream(IterableDataset):
    """A dataset without a length."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.arange(5.0))


class Numbers:
    """Three batches; an iterable that is nothing else."""

    def __iter__(self) -> Iterator[float]:
        return iter([1.0, 2.0, 3.0])


class Own:
    """An endless iterable with random numbers of its own, which go on however often it is iterated."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __iter__(self) -> Iterator[float]:
        while True:
            yield self.generator.normal()


def batches(loader: Any, on_epoch: Callable[[], None] = lambda: None) -> Batches:
    return Batches("p", loader, on_epoch)


def shuffled(**options: Any) -> DataLoader:
    return DataLoader(DATA, 4, shuffle=True, **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1.0, 2.0, 3.0],
    "tensor": lambda: torch.arange(3.0),
    "iterable": Numbers,
    "set": lambda: {1.0, 2.0, 3.0},
    "DataLoader": lambda: DataLoader(DATA, 4),
    "iterable dataset": lambda: DataLoader(Stream(), 2),
    "shuffling": shuffled,
    "own generator": lambda: shuffled(generator=torch.Generator().manual_seed(3)),
    "sampler with a generator": lambda: DataLoader(
        DATA, 4, sampler=RandomSampler(DATA, generator=torch.Generator().manual_seed(3))
    ),
    "weighted sampler": lambda: DataLoader(DATA, 4, sampler=WeightedRandomSampler(torch.ones(10), 10)),
    "two shuffling": lambda: (shuffled(), shuffled()),
    "two, of which one is no DataLoader": lambda: (shuffled(), Numbers()),
    "random generator": lambda: (torch.randn(2) for _ in range(20)),
    "random numbers of its own": Own,
    "python and numpy": lambda: (torch.randn(2) * np.random.rand() for _ in range(20)),
    "none": lambda: None,
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_a_look_changes_nothing(loader: Callable[[], Any]) -> None:
    runs = []
    for looks in (0, 1, 3):
        torch.manual_seed(1)
        np.random.seed(1)
        data = batches(loader())
        state = torch.get_rng_state()
        seen = [data.peek(CPU) for _ in range(looks)]
        assert torch.equal(torch.get_rng_state(), state)
        drawn = [(data.draw(CPU), torch.rand(1), np.random.rand()) for _ in range(9)]
        for batch in seen:
            assert_same(batch, drawn[0][0])
        runs.append((drawn, data.epoch, data.position))
    assert_same(runs[1:], [runs[0]] * 2)


def test_a_look_leaves_a_loaders_own_generator() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    batches((shuffled(generator=generator), shuffled(generator=generator))).peek(CPU)
    assert torch.equal(generator.get_state(), before)


def test_a_look_in_the_middle_is_the_next_batch() -> None:
    data = batches(Numbers())
    assert [data.draw(CPU), data.peek(CPU), data.draw(CPU), data.draw(CPU), data.draw(CPU)] == [1, 2, 2, 3, 1]


def test_starts_over_and_says_so() -> None:
    epochs: list[int] = []
    data = batches([1, 2, 3], lambda: epochs.append(data.epoch))
    assert [data.draw(CPU) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert (epochs, data.epoch, data.position) == ([1, 2], 2, 1)


def test_several_loaders_of_different_lengths() -> None:
    epochs: list[int] = []
    data = batches(([1, 2, 3], [10, 20], Numbers()), lambda: epochs.append(1))
    expected = [(1, 10, 1.0), (2, 20, 2.0), (3, 10, 3.0), (1, 20, 1.0), (2, 10, 2.0)]
    assert [data.draw(CPU) for _ in range(5)] == expected
    assert len(epochs) == 1  # those of the first


def test_a_new_epoch_shuffles_anew() -> None:
    data = batches(DataLoader(DATA, 10, shuffle=True))
    first, second = data.draw(CPU), data.draw(CPU)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[0].sort().values, second[0].sort().values)


def test_epoch_callback_of_a_problem() -> None:
    problem = Given("p", square, train_data_loader=[1, 2])
    alone(problem, train_iters=5).run()
    assert problem.events.count("epoch") == 2
    assert problem.count == 5


@pytest.mark.parametrize("look", [True, False])
def test_data_that_cannot_start_over(look: bool) -> None:
    data = batches(iter([1, 2]))
    if look:
        assert data.peek(CPU) == 1
    assert [data.draw(CPU), data.draw(CPU)] == [1, 2]
    with pytest.raises(ProblemError, match=r"problem 'p': its data ended.*not a generator"):
        data.draw(CPU)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "problem 'p': train_data_loader is empty"),
        ((), "problem 'p': train_data_loader is an empty tuple"),
        (([1], []), "is empty"),
        (DataLoader(TensorDataset(torch.zeros(0))), "is empty"),
        (DataLoader(DATA, 20, drop_last=True), "is empty"),
        (3, r"must be an iterable of batches \(a DataLoader, a list\), or a tuple of several, got int"),
        (([1], None), "got NoneType"),
    ],
)
def test_refused_loaders(loader: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        alone(Given("p", square, train_data_loader=loader))


def test_an_empty_generator_is_refused_at_the_first_step() -> None:
    engine = alone(Given("p", square, train_data_loader=iter(())))
    with pytest.raises(ProblemError, match="its data ended"):
        engine.step()
