"""Every draw from numpy's or Python's generator is seen, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from multilevel.hypergrad.host_draws import host_mark

DRAWS: dict[str, Callable[[], Any]] = {
    "numpy": np.random.rand,
    "numpy bytes": lambda: np.random.bytes(1),
    "all words of numpy": lambda: [np.random.bytes(4) for _ in range(624)],
    "numpy seed": lambda: np.random.seed(5),
    "python": random.random,
    "shuffle": lambda: random.shuffle([1, 2, 3]),
    "all words of python": lambda: [random.random() for _ in range(312)],
    "python seed": lambda: random.seed(5),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_draw_is_seen(draw: Callable[[], Any]) -> None:
    before = host_mark()
    draw()
    assert host_mark() != before


def test_nothing_else_is() -> None:
    before = host_mark()
    np.random.default_rng(0).random()
    random.Random(0).random()
    random.getstate()
    np.random.get_state()
    assert host_mark() == before


def test_another_generator_of_numpys() -> None:
    before, kept = host_mark(), np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        other = host_mark()
        assert other != before
        np.random.rand()
        assert host_mark() != other
    finally:
        np.random.set_bit_generator(kept)
    assert host_mark() == before
