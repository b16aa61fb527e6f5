"""Writing down whatever objects hold, and putting it back: nothing is lost, shared objects stay shared."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import random
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from multilevel.engine.environment_state import read, write
from multilevel.hypergrad.errors import CheckpointError

from .playing import as_data, through_a_file
from .states import differences


class Weather(enum.Enum):
    SUN = 1
    RAIN = 2


class Spot(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass
class Walker:
    place: np.ndarray
    inner: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    energy: float


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    price: float


class Draws:
    """Every kind of generator."""

    def __init__(self) -> None:
        self.python = random.Random(0)
        self.legacy = np.random.RandomState(0)
        self.torch = torch.Generator().manual_seed(0)
        self.numpy = {name: np.random.Generator(getattr(np.random, name)(0)) for name in ("PCG64", "MT19937", "SFC64")}

    def draw(self) -> list[float]:
        numbers = [self.python.gauss(0, 1), self.legacy.randn(), torch.rand((), generator=self.torch).item()]
        return [*numbers, *(generator.normal() for generator in self.numpy.values())]


class World(gymnasium.Env):
    """Remembers all sorts of things."""

    observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1)})

    def __init__(self) -> None:
        self.action_space = spaces.Tuple((spaces.Discrete(5), spaces.Dict({"c": spaces.Box(0, 1, (2,))})))
        self.weather = Weather.SUN
        self.spot = Spot(1, [2])
        self.walkers = [Walker(np.zeros(2, np.float32))]
        self.slotted, self.fixed = Slotted(1.0), Fixed(1.0)
        self.draws = Draws()
        self.visits: dict[Any, int] = defaultdict(int)
        self.order = OrderedDict(a=1, b=2)
        self.recent: deque[Any] = deque(maxlen=3)
        self.seen = {(0, 0)}
        self.when = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        self.ahead = range(4)
        self.grid = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        self.letters = np.array([["ab", "c"]])
        self.big, self.tiny, self.none = 2**70, np.float16(0.1), None
        self.tensor, self.net = torch.zeros(2), nn.Linear(2, 1)
        self.home, self.rule = Path("/maps"), lambda x: x
        self.twin = self.walkers[0]
        self.table = {"rule": self.rule, "walker": self.twin}

    def move(self) -> None:
        self.weather = Weather.RAIN
        self.spot = Spot(3, [4, 5])
        self.walkers[0].place += 1
        self.walkers.append(Walker(np.ones(2), self))
        self.slotted.energy, self.fixed = 0.1, Fixed(0.2)
        self.draws.draw()
        self.visits[(0, 1)] += 2
        self.order.move_to_end("a")
        self.recent.extend([np.float64(0.1), "b", 3, 4])
        self.seen |= {(1, 2)}
        self.when += datetime.timedelta(hours=3)
        self.ahead = range(2, 9, 3)
        self.grid, self.letters = np.asfortranarray(self.grid + 0.1), np.array([["xyz", "c"]])
        self.big, self.tiny, self.none = -(2**80), np.float16(0.3), np.arange(0)
        self.tensor += 1
        nn.init.ones_(self.net.weight)
        self.late = [1]

    def facts(self) -> list[Any]:
        same = [self.twin is self.walkers[0], self.table["walker"] is self.twin, self.table["rule"] is self.rule]
        back = [walker.inner is self for walker in self.walkers]
        plain = [
            self.weather,
            self.spot,
            self.slotted,
            self.fixed,
            self.visits,
            self.order,
            self.recent,
            self.seen,
            self.when,
        ]
        more = [self.ahead, self.big, self.tiny, type(self.tiny), self.none is None, hasattr(self, "late")]
        layout = [self.grid.flags.f_contiguous, self.grid.tolist(), self.letters.tolist(), self.tensor.tolist()]
        moved = [w.place.tolist() for w in self.walkers]
        rest = [self.net.weight.tolist(), self.recent.maxlen, str(self.home)]
        return copy.deepcopy([*same, *back, *plain, *more, *layout, *moved, *rest])

    def drawn(self) -> Any:
        return as_data([self.draws.draw(), self.action_space.sample(), self.observation_space.sample()["b"]])


def test_whatever_an_environment_remembers_is_kept(tmp_path):
    old, new = World(), World()
    for world in (old, new):
        world.action_space.seed(1)
        world.observation_space.seed(1)
    old.move()
    state, missing = write(old)
    assert missing == {}
    state = through_a_file(state, tmp_path)
    expected = old.drawn()
    read(state, new)
    assert new.facts() == old.facts()
    assert differences(new.drawn(), expected) == []
    assert new.walkers[0].place is not old.walkers[0].place


def test_what_came_up_later_is_gone_again():
    world = World()
    state, _ = write(world)
    facts = world.facts()
    world.move()
    read(state, world)
    assert world.facts() == facts
    assert not hasattr(world, "late")


def test_names_in_a_state_are_only_of_classes_that_are_there():
    state = ("object", 0, "os:system", {}, [], None)
    with pytest.raises(CheckpointError, match="os:system"):
        read(state, World())
