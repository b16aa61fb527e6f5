"""A hypergradient is asked for and nothing has changed: not a bit, whichever the method, also after an error."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multilevel import Config, Engine, EngineConfig, Identity, Neumann, Nystrom, ProblemError
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.registry import available
from multilevel.hypergrad.tensors import Tensors

from ..givens import Given, assert_same, bits

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
METHODS = sorted(set(available()) - {"reinforce"})
COARSE = sorted(set(METHODS) - {"darts", "sama"})
"""Those that take parameters in half precision: a finite difference over these is refused."""
REMEMBERING = [
    {"name": "cg", "warm_start": True},
    {"name": "minres", "warm_start": True},
    Nystrom(rank=2, reuse=3),
    Neumann(alpha="auto", refresh=2),
]


class FailsError(Exception):
    """Raised by a training step on demand."""


class Exploding(Given):
    """Raises when its ``fuse``, counted down at each training step, has burnt."""

    fuse = -1

    def training_step(self, batch: Any) -> Any:
        result = super().training_step(batch)
        self.fuse -= 1
        if self.fuse == 0:
            raise FailsError
        return result


def net(seed: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 1)).to(dtype)


def loader(dtype: torch.dtype, seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(
        torch.randn(12, 2, generator=generator).to(dtype), torch.randn(12, 1, generator=generator).to(dtype)
    )
    return DataLoader(data, 5, shuffle=True, drop_last=True, generator=generator if seed % 2 else None)


def lower(problem: Given, batch: Any) -> Any:
    x, y = batch
    noise = 1 + random.random() + np.random.rand()
    error = (problem.module(x) - y).square()
    return {"loss": (problem.upper(x).sigmoid() * error).mean() * noise, "outputs": None}


def upper(problem: Given, batch: Any) -> Tensor:
    x, y = batch
    return (problem.lower(x) - y).square().mean() + problem.module(x).square().mean() * random.random()


def engine_with(method: Any, dtype: torch.dtype = torch.float64, **config: Any) -> Engine:
    low, up = net(1, dtype), net(2, dtype)
    low_optimizer = torch.optim.SGD(low.parameters(), lr=0.05, momentum=0.9)
    up_optimizer = torch.optim.Adam(up.parameters(), lr=0.01)
    problems = [
        Exploding(
            "lower",
            lower,
            low,
            optimizer=low_optimizer,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(low_optimizer, 10),
            train_data_loader=loader(dtype, 3),
            config=Config(type=method, unroll_steps=2, **config),
        ),
        Exploding(
            "upper", upper, up, optimizer=up_optimizer, train_data_loader=(loader(dtype, 4)), config=Config(**config)
        ),
    ]
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(train_iters=6))


def snapshot(engine: Engine) -> Any:
    """Everything that a hypergradient must leave alone."""
    state = copy.deepcopy(bits(engine))
    state["gradients"] = [p.grad for problem in engine.problems.values() for p in problem.parameters]
    state["data"] = [(p.level.batches.position, p.level.batches.epoch) for p in engine.problems.values()]
    state["generators"] = [
        p.train_data_loader.generator.get_state() for p in engine.problems.values() if p.train_data_loader.generator
    ]
    state["random"] = [
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        random.getstate(),
    ]
    state["moments"] = [id(p.level.moment) for p in engine.problems.values()]
    state["events"] = [list(p.events) for p in engine.problems.values()]
    return state


class Guessing(Identity):
    """A method that draws random numbers, as a user's may."""

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return tuple(v * (1 + torch.rand(()).to(v)) * random.random() * np.random.rand() for v in vector)


def asked(engine: Engine, name: str) -> tuple[Tensor, ...]:
    """The hypergradient; nothing for a method that needs an inner loop and has none yet."""
    try:
        return engine.hypergradient(name)
    except ProblemError as error:
        if "the recorded inner loop is empty" not in str(error):
            raise
        return ()


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("method", [*METHODS, *REMEMBERING, Guessing()], ids=str)
def test_nothing_changes(method: Any, steps: int) -> None:
    engine = engine_with(method)
    for _ in range(steps):
        engine.step()
    torch.rand(1), np.random.rand(), random.random()  # not where the last step left off
    before = snapshot(engine)
    first = asked(engine, "upper")
    assert_same(snapshot(engine), before)
    assert_same(asked(engine, "upper"), first)
    asked(engine, "lower")
    assert_same(snapshot(engine), before)
    assert all(g.isfinite().all() for g in first)


@pytest.mark.parametrize("method", COARSE)
def test_nothing_changes_in_bfloat16(method: str) -> None:
    engine = engine_with(method, torch.bfloat16)
    engine.step()
    before = snapshot(engine)
    engine.hypergradient("upper")
    assert_same(snapshot(engine), before)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_changes_under_autocast(method: str) -> None:
    engine = engine_with(method, torch.float32, precision="bf16")
    engine.step()
    before = snapshot(engine)
    engine.hypergradient("upper")
    assert_same(snapshot(engine), before)


@pytest.mark.parametrize("where", ["lower", "upper"])
@pytest.mark.parametrize(
    ("method", "dtype"), [*[(m, torch.float64) for m in METHODS], *[(m, torch.bfloat16) for m in COARSE]]
)
def test_nothing_changes_when_a_training_step_raises(method: str, dtype: torch.dtype, where: str) -> None:
    engine = engine_with(method, dtype)
    for _ in range(3):
        engine.step()
    before = snapshot(engine)
    expected = engine.hypergradient("upper")
    for fuse in (1, 2, 3):  # the first evaluation, or one inside a difference
        engine[where].fuse = fuse
        try:
            engine.hypergradient("upper")
        except FailsError:
            assert engine[where].fuse == 0
        assert_same(snapshot(engine), before)
        engine[where].fuse = -1
    assert_same(engine.hypergradient("upper"), expected)


@pytest.mark.parametrize("where", ["lower", "upper"])
def test_an_error_in_a_step_leaves_the_parameters_of_the_others(where: str) -> None:
    engine = engine_with("darts")
    engine.step()
    objects = {name: [id(p) for p in problem.module.parameters()] for name, problem in engine.problems.items()}
    engine["lower"].fuse = 3  # in a difference of the upper's step
    with pytest.raises(FailsError):
        engine.step()
    assert {n: [id(p) for p in problem.module.parameters()] for n, problem in engine.problems.items()} == objects
    engine.step()


def run(method: Any, between: Callable[[Engine, int], None]) -> Any:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    engine = engine_with(method)
    torch.manual_seed(8)
    for step in range(6):
        between(engine, step)
        engine.step()
    return snapshot(engine) | {"moments": None}


@pytest.mark.parametrize("method", [*METHODS, *REMEMBERING, Guessing()], ids=str)
def test_a_run_with_hypergradients_in_between_ends_in_the_same_place(method: Any) -> None:
    def ask(engine: Engine, step: int) -> None:
        for _ in range(step % 3 if step else 2):
            asked(engine, "upper" if step % 2 == 0 else "lower")

    assert_same(run(method, ask), run(method, lambda engine, step: None))


class Drawing(Given):
    """Draws its batches itself, from torch's generator."""

    def get_batch(self) -> Any:
        return torch.randn(2)


@pytest.mark.parametrize("generator", [False, True])
def test_data_that_cannot_be_shown_twice(generator: bool) -> None:
    """A leaf whose batches are drawn as it goes: the look uses up what the step then does not draw again."""

    def loss(problem: Given, batch: Any) -> Tensor:
        return (problem.module() * nn.functional.dropout(batch, 0.5)).sum()

    def trained(looks: int) -> Any:
        torch.manual_seed(3)
        data = (torch.randn(2) for _ in range(10)) if generator else None
        problem = (Given if generator else Drawing)("p", loss, train_data_loader=data)
        engine = Engine([problem])
        for _ in range(3):
            state = torch.get_rng_state()
            for _ in range(looks):
                engine.hypergradient("p")
            assert torch.equal(torch.get_rng_state(), state)
            engine.step()
        return problem.module.state_dict(), torch.get_rng_state()

    expected = trained(0)
    assert_same(trained(1), expected)
    assert_same(trained(2), expected)
