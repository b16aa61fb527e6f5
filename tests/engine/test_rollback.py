"""Roll-back: the levels below return to where their inner loop started and take it again, as a loop by hand does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.utils.data import DataLoader, TensorDataset

from multilevel import Config, Engine, EngineConfig

from ..conftest import EXACT
from ..givens import Given, Vector, assert_same, bits

LR, MOMENTUM, DECAY = 0.3, 0.9, 0.8
NOISE = [0.3, -0.2, 0.5, 0.1, -0.4, 0.7, 0.2]


def problem(name: str, loss: Any, start: float, **config: Any) -> Given:
    """SGD with momentum, and a learning rate that falls with each step."""
    module = Vector(start)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    return Given(name, loss, module, optimizer=optimizer, scheduler=scheduler, config=Config(**config))


class Moving:
    """One number under SGD with momentum and a falling learning rate, by hand."""

    def __init__(self, value: float) -> None:
        self.value, self.velocity, self.lr = value, 0.0, LR

    def step(self, gradient: float) -> None:
        self.velocity = MOMENTUM * self.velocity + gradient
        self.value -= self.lr * self.velocity
        self.lr *= DECAY


def values(engine: Engine, *names: str) -> list[float]:
    return [engine[name].parameters[0].item() for name in names]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_two_levels(steps: int) -> None:
    """(z - x - b)^2 m / 2 below with random m, (z - 1)^2 / 2 above; the identity gives dz*/dx = m."""
    masks: list[float] = []

    def lower(p: Given, batch: Any) -> Tensor:
        mask = dropout(torch.ones(1), 0.5)
        if p.module().grad_fn is None and torch.is_grad_enabled():
            masks.append(mask.item())
        return (mask * (p.module() - p.upper() - batch) ** 2).sum() / 2

    low = problem("lower", lower, 0.0, type="identity", unroll_steps=steps)
    low.train_data_loader = NOISE
    up = problem("upper", lambda p, b: ((p.lower() - 1) ** 2).sum() / 2, 2.0)
    engine = Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(roll_back=True, seed=3))
    torch.manual_seed(3)
    x, z = Moving(2.0), Moving(0.0)
    drawn = 0
    for _ in range(4):
        before, taken = copy.deepcopy(z), []
        for _ in range(steps):
            mask = dropout(torch.ones(1), 0.5).item()
            noise = NOISE[drawn % len(NOISE)]
            drawn += 1
            z.step(mask * (z.value - x.value - noise))
            taken.append((mask, noise))
        x.step(taken[-1][0] * (z.value - 1))
        z = before
        for mask, noise in taken:
            z.step(mask * (z.value - x.value - noise))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(4 * steps):
        engine.step()
    assert values(engine, "lower", "upper") == pytest.approx([z.value, x.value], abs=EXACT)
    assert torch.equal(torch.get_rng_state(), state)
    assert (engine["lower"].count, engine["lower"].level.update.steps) == (4 * steps, 4 * steps)


class ByHand:
    """Low (z - y - b)^2 / 2, mid (y - x)^2 / 2 + (z - 1)^2 / 4, top (y - 2)^2 / 2, each roll-back nested."""

    def __init__(self) -> None:
        self.x, self.y, self.z = Moving(1.0), Moving(0.5), Moving(-0.5)
        self.noise = iter(NOISE * 10)

    def top_cycle(self, mid_steps: int, low_steps: int) -> None:
        noises = [[next(self.noise) for _ in range(low_steps)] for _ in range(mid_steps)]
        before = copy.deepcopy((self.y, self.z))
        for noise in noises:
            self.mid_cycle(noise)
        self.x.step(self.y.value - 2)
        self.y, self.z = before
        for noise in noises:
            self.mid_cycle(noise)

    def mid_cycle(self, noises: list[float]) -> None:
        before = copy.deepcopy(self.z)
        self.low_loop(noises)
        self.y.step((self.y.value - self.x.value) + (self.z.value - 1) / 2)
        self.z = before
        self.low_loop(noises)

    def low_loop(self, noises: list[float]) -> None:
        for noise in noises:
            self.z.step(self.z.value - self.y.value - noise)


def three_levels(mid_steps: int, low_steps: int, **config: Any) -> Engine:
    low = problem(
        "low",
        lambda p, b: ((p.module() - p.mid() - b) ** 2).sum() / 2,
        -0.5,
        type="identity",
        unroll_steps=low_steps,
    )
    low.train_data_loader = NOISE * 10
    mid = problem(
        "mid",
        lambda p, b: ((p.module() - p.top()) ** 2).sum() / 2 + ((p.low() - 1) ** 2).sum() / 4,
        0.5,
        type="identity",
        unroll_steps=mid_steps,
    )
    top = problem("top", lambda p, b: ((p.mid() - 2) ** 2).sum() / 2, 1.0)
    edges = [("top", "mid"), ("mid", "low")]
    return Engine([top, mid, low], edges=edges, config=EngineConfig(roll_back=True, **config))


@pytest.mark.parametrize(("mid_steps", "low_steps"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2)])
def test_a_middle_level_with_any_unroll_steps(mid_steps: int, low_steps: int) -> None:
    engine, by_hand = three_levels(mid_steps, low_steps), ByHand()
    for _ in range(3):
        by_hand.top_cycle(mid_steps, low_steps)
        for _ in range(mid_steps * low_steps):
            engine.step()
        expected = [by_hand.x.value, by_hand.y.value, by_hand.z.value]
        assert values(engine, "top", "mid", "low") == pytest.approx(expected, abs=EXACT)


def test_warm_up_is_not_taken_again() -> None:
    def engine(warmup: int) -> Engine:
        low = problem("lower", lower, 0.0, type="identity", unroll_steps=2, warmup_steps=warmup)
        up = problem("upper", lambda p, b: ((p.lower() - 1) ** 2).sum() / 2, 2.0)
        return Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(roll_back=True))

    calls = []

    def lower(p: Given, batch: Any) -> Tensor:
        calls.append(1)
        return ((p.module() - p.upper()) ** 2).sum() / 2

    counts = []
    for warmup in (0, 5):
        calls.clear()
        trained = engine(warmup)
        for _ in range(warmup + 2):
            trained.step()
        counts.append(len(calls))
    assert counts[1] - counts[0] == 5


def test_hypergradients_of_a_recorded_loop_are_those_of_one_loop() -> None:
    """z' = z - a (z - x): after K steps dz/dx = 1 - (1 - a)^K, at every upper step."""
    low = Given("lower", lambda p, b: ((p.module() - p.upper()) ** 2).sum() / 2, Vector(0.0), lr=0.3)
    low.config = Config(type="unroll", unroll_steps=3)
    up = Given("upper", lambda p, b: ((p.lower() - 1) ** 2).sum() / 2, Vector(2.0), lr=0.1)
    engine = Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(roll_back=True))
    x, z = 2.0, 0.0
    for _ in range(4):
        before = z
        for _ in range(3):
            z -= 0.3 * (z - x)
        x -= 0.1 * (1 - 0.7**3) * (z - 1)
        z = before
        for _ in range(3):
            z -= 0.3 * (z - x)
        for _ in range(3):
            engine.step()
        assert values(engine, "lower", "upper") == pytest.approx([z, x], abs=EXACT)


class Normed(nn.Module):
    """Batch norm and dropout: buffers and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def fits(p: Given, batch: Any) -> Tensor:
    return ((p.lower(batch[0]) - batch[1]) ** 2).mean()


def realistic(method: str = "cg", upper: Any = fits, **config: Any) -> Engine:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(30, 3), torch.randn(30, 1))
    net = Normed()
    low = Given(
        "lower",
        lambda p, b: (p.upper().exp() * (p.module(b[0]) - b[1]) ** 2).mean(),
        net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
        train_data_loader=DataLoader(data, 5, shuffle=True),
        config=Config(type=method, unroll_steps=2, gradient_accumulation=2),
    )
    up = Given("upper", upper, Vector(0.1))
    up.train_data_loader = DataLoader(data, 10, shuffle=True)
    return Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(**{"roll_back": True, **config}))


@pytest.mark.parametrize("method", ["cg", "unroll"])
@pytest.mark.parametrize("stop", [0, 3, 5, 6, 8])
def test_it_goes_on_from_a_checkpoint_to_the_same_bits(method: str, stop: int) -> None:
    whole, first, second = (realistic(method, train_iters=13, seed=1) for _ in range(3))
    whole.run()
    torch.manual_seed(1)
    first = realistic(method, train_iters=13, seed=1)
    for _ in range(stop):
        first.step()
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    second.load_state_dict(state)
    second.run()
    assert_same(bits(second), bits(whole))


def test_with_an_upper_that_stands_still_nothing_changes() -> None:
    """Taken again under the same upper, an inner loop ends where it ended: buffers, optimizer, random numbers."""
    states = []
    for roll_back in (True, False):
        # An upper that calls the lower moves its running statistics, which a roll-back undoes: this one only looks.
        engine = realistic(
            "identity",
            upper=lambda p, b: p.lower.module.layers[0].weight.square().sum(),
            roll_back=roll_back,
            train_iters=8,
            seed=1,
        )
        engine["upper"].optimizer.param_groups[0]["lr"] = 0.0
        engine.run()
        states.append(bits(engine))
        del states[-1]["progress"]["roll_back"]
    assert_same(*states)
