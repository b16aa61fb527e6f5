"""Batches as data and back: the same values, the same kinds, and no code of a file is ever run."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass
from enum import Enum, Flag, auto
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from multilevel import CheckpointWarning
from multilevel.problems.packing import PackingError, pack, pack_parts, unpack


class Pair(NamedTuple):
    inputs: Tensor
    labels: Tensor


@dataclass
class Graph:
    nodes: Tensor
    name: str


class Mode(Enum):
    SMALLER = "min"
    LARGER = "max"


class Side(Flag):
    LEFT = auto()
    RIGHT = auto()


class Encoding(UserDict):  # type: ignore[type-arg]
    """As tokenizers return them."""


VALUES: dict[str, Any] = {
    "tensor": torch.arange(6.0).reshape(2, 3),
    "bfloat16": torch.arange(6.0).bfloat16(),
    "nothing": None,
    "numbers": [1, 2.5, True, "text", b"bytes", 3 + 4j],
    "nested": {"a": (torch.ones(2), [torch.zeros(1), {"b": None}]), 3: ()},
    "ordered": OrderedDict(b=1, a=2),
    "named": Pair(torch.ones(2, 3), torch.tensor([0, 1])),
    "object": Graph(torch.ones(3), "ring"),
    "encoding": Encoding(ids=torch.tensor([1, 2]), mask=torch.tensor([1, 0])),
    "array": np.arange(6, dtype=np.float32).reshape(3, 2),
    "booleans": np.array([True, False]),
    "numpy's number": np.float32(1.5),
    "double": np.float64(0.1),
    "unsigned": np.array(2**63 + 1, dtype=np.uint64),
    "complex": np.array([0.1 + 0.2j]),
    "no elements": np.zeros((0, 3)),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "sparse": torch.eye(3).to_sparse(),
    "sets": [{1, 2}, frozenset({"a"})],
    "counts": Counter("hello"),
    "made by need": defaultdict(list, a=[torch.ones(1)]),
    "made by nothing": defaultdict(None, a=1),
    "the last three": deque([1, 2, 3], maxlen=3),
    "one of several": [Mode.LARGER, Side.LEFT],
    "shape": torch.Size([2, 3]),
    "bytes that change": bytearray(b"abc"),
    "keyed": {(1, 2): "a", Mode.SMALLER: "b"},
    "packed": pack_sequence([torch.ones(3), torch.ones(1)]),
}


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a.to_dense(), b.to_dense())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, (UserDict, dict)):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (deque, defaultdict)) and repr(a) != repr(b):  # which shows the length and the factory too
        return False
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Graph):
        return same(vars(a), vars(b))
    return bool(a == b)


@pytest.mark.parametrize("name", VALUES)
def test_what_is_packed_comes_back_through_a_file(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    file = io.BytesIO()
    torch.save(pack(VALUES[name]), file)
    file.seek(0)
    assert same(unpack(torch.load(file, weights_only=True)), VALUES[name])


def test_a_view_does_not_take_all_the_data_along() -> None:
    data = torch.zeros(1000)
    packed = pack([data[:3]])
    assert packed[1][0].untyped_storage().nbytes() == 3 * data.element_size()


REFUSED = [lambda: 1, [open], type("S", (), {"__slots__": ("a",)})(), Path("x"), Random(1), ValueError("x"), range(3)]


@pytest.mark.parametrize("value", [*REFUSED, np.array(["a"]), Side.LEFT | Side.RIGHT, defaultdict(lambda: 1)])
def test_what_is_no_data_is_refused(value: Any) -> None:
    with pytest.raises(PackingError, match="cannot be written into a checkpoint"):
        pack(value)


def test_a_class_that_nothing_can_find_again_is_refused_while_it_can_be_mended() -> None:
    @dataclass
    class Local:
        value: int

    with pytest.raises(PackingError, match=r"Local cannot be written .* its class is made inside a function"):
        pack([Local(1)])


def test_what_cannot_be_written_is_left_out_by_its_name_and_the_rest_stays() -> None:
    values = {"best": np.float64(0.5), "rule": abs, 3: (1, 2), "place": Path("x")}
    with pytest.warns(CheckpointWarning) as caught:
        packed = pack_parts(values, lambda key: f"entry '{key}'")
    assert [str(warning.message).partition(" is not kept in the checkpoint")[0] for warning in caught] == [
        "entry 'rule'",
        "entry 'place'",
    ]
    assert unpack(packed) == {"best": 0.5, 3: (1, 2)}


def test_a_member_that_is_gone_is_refused() -> None:
    with pytest.raises(PackingError, match=r"Mode\.EQUAL, which is no longer among its members"):
        unpack(("enum", f"{__name__}:Mode", "EQUAL"))


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(PackingError, match="which this process does not know"):
        unpack(("object", "elsewhere:Thing", []))


def test_rebuilding_runs_no_code() -> None:
    class Loud:
        def __init__(self) -> None:
            self.ran = True

        def __setstate__(self, state: Any) -> None:
            raise AssertionError

    globals()["Loud"] = Loud
    Loud.__qualname__ = "Loud"
    assert vars(unpack(("object", f"{__name__}:Loud", [("ran", False)]))) == {"ran": False}


def test_a_packed_sequence_keeps_its_lengths() -> None:
    found = unpack(pack(VALUES["packed"]))
    assert isinstance(found, PackedSequence)
    assert torch.equal(found.batch_sizes, VALUES["packed"].batch_sizes)


def test_what_holds_itself_is_refused() -> None:
    class Node:
        me: Any = None

    node = Node()
    node.me = node
    with pytest.raises(PackingError, match="Node cannot be written into a checkpoint: it holds itself"):
        pack(node)
