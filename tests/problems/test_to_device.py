"""A batch moves to the device whole, whatever it is made of."""

from __future__ import annotations

import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader

from multilevel.problems.to_device import to_device

from ..givens import Given, alone, assert_same, square

CPU, META = torch.device("cpu"), torch.device("meta")


class Encoding(UserDict):
    """Like the encodings of Hugging Face: a UserDict with a ``to`` that writes to the object itself."""

    def to(self, device: torch.device) -> Encoding:
        self.data = {}
        return self


class Sample(namedtuple("Base", "x y")):
    pass


class Rows(list):
    pass


class Graph:
    """Knows how to move itself."""

    def __init__(self, device: str) -> None:
        self.device = device

    def to(self, device: torch.device) -> Graph:
        return Graph(str(device))


def one() -> torch.Tensor:
    return torch.ones(2)


@pytest.mark.parametrize(
    "batch",
    [
        one(),
        (one(), one()),
        [one(), [one()]],
        {"a": one(), "b": {"c": (one(), "text")}},
        Sample(one(), (one(),)),
        Rows([one()]),
        UserDict(a=one(), b=[one()]),
        Encoding(a=one()),
        OrderedDict(b=one(), a=one()),
        defaultdict(list, {"a": one()}),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_everything_moves_and_keeps_its_type(batch: Any) -> None:
    before = str(batch)
    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert all(t.device == META for t in tensors(moved))
    assert len(tensors(moved)) == len(tensors(batch))
    assert str(batch) == before  # the loader's own batch is left alone


def tensors(batch: Any) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, str):
        return []
    parts = batch.values() if isinstance(batch, (dict, UserDict)) else batch
    return [t for part in parts for t in tensors(part)]


@pytest.mark.parametrize("value", ["text", b"bytes", None, 3, 2.5, np.ones(2)], ids=repr)
def test_other_values_stay(value: Any) -> None:
    assert to_device(value, META) is value


def test_objects_with_to_move_themselves() -> None:
    moved = to_device({"g": Graph("cpu")}, META)
    assert moved["g"].device == "meta"


def test_a_read_only_mapping_becomes_a_dict() -> None:
    assert to_device(types.MappingProxyType({"a": one()}), META)["a"].device == META


def test_packed_sequences_keep_their_lengths_on_the_host() -> None:
    moved = to_device(pack_sequence([torch.ones(3, 2), torch.ones(1, 2)]), META)
    assert isinstance(moved, PackedSequence)
    assert moved.data.device == META
    assert moved.batch_sizes.device == CPU


def test_a_batch_reaches_training_step_whole() -> None:
    seen: list[Any] = []

    def loss(problem: Given, batch: Any) -> torch.Tensor:
        seen.append(batch)
        return square(problem, batch)

    problem = Given("p", loss, train_data_loader=DataLoader(torch.arange(4.0), 2))
    alone(problem, train_iters=1).run()
    assert_same(seen, [torch.tensor([0.0, 1.0])])  # not a tuple of rows
