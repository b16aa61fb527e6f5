"""On a device besides the host: the same numbers, random numbers of its own, and steps that do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multilevel import CG, Config, Engine, EngineConfig, Neumann, Nystrom, Unroll
from multilevel.configs.loader import load, shipped
from multilevel.engine.build import build
from multilevel.engine.device import resolve_device
from multilevel.hypergrad.replay import RandomState
from multilevel.hypergrad.tally import tallied

from ..conftest import CLOSED_FORM, FINITE_DIFFERENCE
from ..givens import Given, assert_same
from ..second_device import DEVICE, Elsewhere, SecondDevice

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
HOST = torch.device("cpu")
METHODS: dict[str, Any] = {
    "darts": "darts",
    "sama": "sama",
    "identity": "identity",
    "neumann": Neumann(iterations=3, alpha=0.1),
    "neumann, auto": Neumann(iterations=3, alpha="auto"),
    "cg": CG(iterations=3),
    "cg, warm": CG(iterations=3, warm_start=True),
    "gmres": {"name": "gmres", "iterations": 3},
    "minres": {"name": "minres", "iterations": 3},
    "nystrom": Nystrom(rank=3),
    "exact": "exact",
    "unroll": "unroll",
    "unroll, again": Unroll(checkpoints="all"),
}
QUICK = "reweight-digits"
NO_WAIT = ["darts", "sama", "identity", "neumann", "cg", "cg, warm"]


@pytest.fixture(autouse=True, scope="module")
def _threads_let_go() -> Iterator[None]:
    """Autograd's thread lets go of what it held a moment later, and a process that ends before that is aborted."""
    yield
    time.sleep(0.5)


def with_momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=0.01)


def net(seed: int, middle: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 4), *([] if middle is None else [middle]), nn.Tanh(), nn.Linear(4, 1)]
    return nn.Sequential(*layers)


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(24, 3, generator=generator), torch.randn(24, 1, generator=generator))
    return DataLoader(data, 8, shuffle=True, generator=generator)


def weighted(problem: Given, batch: Any) -> Tensor:
    x, y = batch
    decay = sum(p.square().sum() for p in problem.module.parameters())
    return (problem.upper(x).sigmoid() * (problem.module(x) - y).square()).mean() + 0.1 * decay


def fits(problem: Given, batch: Any) -> dict[str, Tensor]:
    x, y = batch
    error = (problem.lower(x) - y).square().mean()
    return {"loss": error + 0.1 * problem.module(x).square().mean(), "error": error}


def two_levels(method: Any, optimizer: Any = with_momentum, middle: nn.Module | None = None, **settings: Any) -> Engine:
    low, up = net(1, middle), net(2)
    config = Config(type=method, unroll_steps=2, gradient_clipping=1.0)
    problems = [
        Given("lower", weighted, low, optimizer=optimizer(low.parameters()), config=config, train_data_loader=loader()),
        Given("upper", fits, up, lr=0.1, train_data_loader=loader()),
    ]
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(**settings))


def three_levels(method: Any, **settings: Any) -> Engine:
    def follows(problem: Given, batch: Any) -> Tensor:
        x, y = batch
        scale = problem.top.module[0].weight.square().mean()
        return (problem.lower(x) - y).square().mean() + scale * problem.module(x).square().mean()

    def judges(problem: Given, batch: Any) -> Tensor:
        x, y = batch
        return (problem.lower(x) - y).abs().mean() + problem.upper(x).square().mean()

    def part(name: str, loss: Any, seed: int) -> Given:
        config = Config(type=method, unroll_steps=2 if name == "lower" else 1)
        return Given(name, loss, net(seed), lr=0.1, config=config, train_data_loader=loader())

    problems = [part("lower", weighted, 1), part("upper", follows, 2), part("top", judges, 3)]
    edges = [("upper", "lower"), ("top", "upper"), ("top", "lower")]
    return Engine(problems, edges=edges, config=EngineConfig(**settings))


def on_host(tensors: Any) -> list[Tensor]:
    return [t.inner if isinstance(t, Elsewhere) else t for t in tensors]


def parameters(engine: Engine) -> Tensor:
    return torch.cat([p.detach().flatten() for q in engine.problems.values() for p in on_host(q.parameters)])


def ends(build: Callable[..., Engine], steps: int = 4) -> tuple[Tensor, Tensor]:
    """Where steps lead to, on the host and on the second device."""
    found = []
    for device in (HOST, DEVICE):
        with SecondDevice():
            engine = build(device=str(device))
            for _ in range(steps):
                engine.step()
            assert {p.device for q in engine.problems.values() for p in q.parameters} == {device}
            found.append(parameters(engine))
    return found[0], found[1]


def test_the_device_of_these_tests_refuses_what_a_device_refuses_and_counts_who_waits():
    with SecondDevice() as device:
        there = torch.arange(3.0, device=DEVICE)
        assert there.device == DEVICE
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        assert not device.waits
        assert (there * 2).sum().item() == 6
        assert torch.equal(there.cpu(), torch.arange(3.0))
        assert sum(device.waits.values()) == 2


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_ends_where_it_does_on_the_host(method):
    host, device = ends(lambda **settings: two_levels(method, middle=nn.BatchNorm1d(4), **settings))
    assert (host - device).abs().max() < FINITE_DIFFERENCE * 1e-3


@pytest.mark.parametrize("method", ["darts", "sama", "identity", "cg"])
def test_three_levels_end_where_they_do_on_the_host(method):
    host, device = ends(lambda **settings: three_levels(method, **settings))
    assert (host - device).abs().max() < CLOSED_FORM


@pytest.mark.parametrize("settings", [{"roll_back": True}, {"non_finite": "restore"}, {"response": "direct"}])
def test_settings_that_copy_and_restore_work_there(settings):
    host, device = ends(lambda **more: three_levels("identity", **settings, **more))
    assert (host - device).abs().max() < CLOSED_FORM


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in ("AdamW", "RMSprop", "Adagrad") for method in ("sama", "unroll")),
        pytest.param("LBFGS", "darts", marks=pytest.mark.slow),
    ],
)
def test_optimizers_end_where_they_do_on_the_host(name, method):
    kind = getattr(torch.optim, name)
    host, device = ends(lambda **settings: two_levels(method, lambda p: kind(p, lr=0.01), **settings))
    assert (host - device).abs().max() < CLOSED_FORM


@pytest.mark.parametrize("method", NO_WAIT)
def test_a_step_waits_for_nothing(method):
    with SecondDevice() as device:
        engine = two_levels(METHODS[method], device=str(DEVICE))
        for _ in range(4):  # the first losses are looked at
            engine.step()
        device.waits.clear()
        for _ in range(8):
            engine.step()
        assert not device.waits


@pytest.mark.parametrize(("method", "times"), [("nystrom", 1), ("exact", 3), ("unroll", 1), ("unroll, again", 2)])
def test_other_methods_wait_so_often_for_a_hypergradient(method, times):
    with SecondDevice() as device:
        engine = two_levels(METHODS[method], device=str(DEVICE))
        for _ in range(4):
            engine.step()
        device.waits.clear()
        for _ in range(4):  # two steps of the upper
            engine.step()
        assert sum(device.waits.values()) == 2 * times


def test_a_tolerance_is_worth_waiting_for():
    with SecondDevice() as device:
        engine = two_levels(CG(iterations=50, tolerance=1e-3), device=str(DEVICE))
        for _ in range(4):
            engine.step()
        device.waits.clear()
        for _ in range(2):
            engine.step()
        assert 2 < sum(device.waits.values()) < 50


@pytest.mark.parametrize("method", ["darts", "unroll", "cg"])
def test_its_random_numbers_are_replayed_and_left_alone(method):
    with SecondDevice() as device:
        engine = two_levels(METHODS[method], middle=nn.Dropout(0.5), device=str(DEVICE))
        for _ in range(3):
            engine.step()
        before = device.generator.get_state()
        first, second = engine.hypergradient("upper"), engine.hypergradient("upper")
        assert torch.equal(before, device.generator.get_state())
        assert_same(on_host(first), on_host(second))
        engine.step()
        assert not torch.equal(before, device.generator.get_state())


def test_a_checkpoint_holds_its_random_numbers():
    with SecondDevice() as device:
        state = RandomState(DEVICE, host=False)
        first = torch.rand(3, device=DEVICE)
        assert not state.is_current()
        RandomState.from_state_dict(state.state_dict(), DEVICE).restore()
        assert state.is_current()
        assert torch.equal(torch.rand(3, device=DEVICE).inner, first.inner)
        assert not device.waits


def test_work_in_threads_of_autograd_is_counted():
    tallies = []
    for device in (HOST, DEVICE):
        with SecondDevice():
            engine = three_levels("cg", device=str(device))
            engine.step()
            with tallied() as tally:
                engine.hypergradient("top")
            tallies.append(tally)
    assert tallies[0] == tallies[1]
    assert tallies[0].hessian_products > 2


def test_auto_is_the_device_that_is_there():
    assert resolve_device("auto") == HOST
    with SecondDevice():
        assert resolve_device("auto").type == DEVICE.type
        assert {p.device for p in two_levels("darts", device="auto")["lower"].parameters} == {DEVICE}


EXPERIMENTS = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in sorted(shipped())]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_end_where_they_do_on_the_host(name):
    torch.set_default_dtype(torch.float32)
    found = []
    for device in (HOST, DEVICE):
        with SecondDevice():
            engine = build(load(name, ["engine.train_iters=2", f"engine.device={device}"]))
            engine.run()
            found.append(parameters(engine))
    assert torch.equal(*found)
