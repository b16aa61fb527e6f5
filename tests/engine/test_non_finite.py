"""A loss or a gradient that is not a number: the run ends and says where, or goes on as if it had never been."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import Callback, Config, Engine, EngineConfig, NonFiniteError, Problem
from multilevel.hypergrad.errors import CheckpointWarning
from multilevel.problems.batches import Batches
from multilevel.problems.level_state import cloned, training_state

from ..givens import Given, Vector, assert_same, bits, chain, pair

NAN = float("nan")


class Watched(Callback):
    """Keeps the training state of every problem, and the metrics, after each level step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, dict[str, Any], dict[str, Tensor]]] = []

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
        states = {name: cloned(training_state(p)) for name, p in engine.problems.items()}
        for state in states.values():
            del state["count"]
        self.steps.append((problem.name, states, dict(metrics)))


METHODS: list[Any] = [
    "identity",
    "darts",
    "sama",
    {"name": "neumann", "iterations": 3, "alpha": 0.1},
    {"name": "cg", "iterations": 3, "warm_start": True},
    {"name": "minres", "iterations": 3, "warm_start": True},
    {"name": "gmres", "iterations": 3, "warm_start": True},
    {"name": "nystrom", "rank": 2, "reuse": 3},
    "exact",
    "unroll",
]


def name_of(method: Any) -> str:
    return method if isinstance(method, str) else method["name"]


def batches(bad: Sequence[int] = (), count: int = 12) -> list[Tensor]:
    """Random batches of which some are not numbers."""
    return [torch.full((4, 3), NAN) if i in bad else torch.randn(4, 3) for i in range(count)]


def normalized(
    method: Any,
    *,
    low: Sequence[int] = (),
    up: Sequence[int] = (),
    accumulation: int = 1,
    watching: Sequence[Callback] = (),
    **config: Any,
) -> Engine:
    """A network with running statistics below a weight, with batches that are not numbers at either level."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Tanh(), nn.Linear(2, 1))
    vector = Vector(0.1, 0.2, 0.3)

    def lower(problem: Given, batch: Tensor) -> Tensor:
        decay = torch.stack([p.square().sum() for p in problem.module.parameters()]).sum()
        return (problem.module(batch) - batch @ problem.upper()[:, None]).square().mean() + 0.1 * decay

    def upper(problem: Given, batch: Tensor) -> Tensor:
        return (problem.lower(batch) - batch.sum(1, keepdim=True)).square().mean() + problem.module().square().sum() / 9

    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.5)
    lower_config = Config(type=method, unroll_steps=2, gradient_accumulation=accumulation)
    problems = [
        Given("upper", upper, vector, train_data_loader=batches(up)),
        Given("lower", lower, net, optimizer=optimizer, train_data_loader=batches(low), config=lower_config),
    ]
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(**config), callbacks=watching)


def curved(curvature: float, method: Any, **config: Any) -> Engine:
    """A lower problem with so much curvature, whose solution the upper one moves, at lr 0."""
    return pair(
        lambda p, b: (curvature * p.module().square() / 2 - p.module() * p.upper()).sum(),
        lambda p, b: p.lower().sum() + p.module().square().sum(),
        method=method,
        lr=0.0,
        engine=EngineConfig(**config),
    )


BROKEN = [
    pytest.param(1e-310, {"name": "exact"}, "exact", id="exact, H near zero"),
    pytest.param(1e-310, {"name": "cg", "iterations": 3}, "cg(iterations=3)", id="cg, H near zero"),
    pytest.param(1e200, {"name": "neumann", "iterations": 5}, "neumann(iterations=5)", id="neumann, diverging"),
]


@pytest.mark.parametrize(("curvature", "method", "shown"), BROKEN)
def test_an_infinite_hypergradient_is_named_with_level_edge_method_and_norms(
    curvature: float, method: Any, shown: str
) -> None:
    with pytest.raises(NonFiniteError) as caught:
        curved(curvature, method, log_step=1).run()
    message = str(caught.value)
    assert "problem 'upper': loss 2, norm of its gradient " in message
    assert f"edge upper -> lower: method {shown} of 'lower'" in message
    assert "made a cotangent of norm 1 into a hypergradient of norm " in message
    assert "(EngineConfig(non_finite='skip'))" in message


def test_the_edge_is_the_one_where_it_happened() -> None:
    def middle(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.top()).square().sum() / 2 + problem.low().sum()

    def low(problem: Given, batch: Any) -> Tensor:
        return 1e-310 * problem.module().square().sum() / 2 - (problem.module() * problem.mid()).sum()

    problems = [
        Given("top", lambda p, b: p.mid().sum(), lr=0.0),
        Given("mid", middle, lr=0.0),
        Given("low", low, lr=0.0, config=Config(type="exact")),
    ]
    engine = Engine(problems, edges=chain("top", "mid", "low"), config=EngineConfig(log_step=1))
    with pytest.raises(NonFiniteError, match=r"problem 'mid': .*edge mid -> low: method exact of 'low'"):
        engine.run()


def singular(problem: Given, batch: Any) -> Tensor:
    """At 0 its gradient is 0 and its second derivative infinite."""
    return (problem.module().abs().pow(1.5) * problem.upper()).sum()


@pytest.mark.parametrize("mode", ["raise", "skip", "restore"])
def test_where_a_method_has_no_answer_at_all_that_is_treated_alike(mode: str) -> None:
    """``exact`` finds that H is infinite before there is a hypergradient."""
    engine = pair(
        singular,
        lambda p, b: p.lower().sum() + p.module().square().sum(),
        method="exact",
        modules=(Vector(0.0), Vector(1.0)),
        engine=EngineConfig(train_iters=3 if mode == "skip" else 100, non_finite=mode),
    )
    watched = Watched()
    engine.callbacks.callbacks.append(watched)
    if mode == "skip":
        engine.run()
    else:
        with pytest.raises(NonFiniteError, match="'upper': no hypergradient: edge upper -> lower: exact: the Hessian"):
            engine.run()
    assert engine.step_count == {"raise": 0, "skip": 3, "restore": 10}[mode]
    assert engine["upper"].module().item() == 1.0
    if mode == "skip":
        assert watched.steps[-1][2]["skipped batches"] == 3


@pytest.mark.filterwarnings("ignore::multilevel.hypergrad.errors.NumericsWarning")  # far from a minimum, or of nan
@pytest.mark.parametrize("level", ["low", "up"])
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_batch_that_is_left_out_leaves_nothing_behind(method: Any, level: str) -> None:
    watched = Watched()
    bad = {"low": (2, 3), "up": (1,)}[level]
    engine = normalized(method, **{level: bad}, non_finite="skip", train_iters=12, log_step=1, watching=[watched])
    engine.run()
    name = {"low": "lower", "up": "upper"}[level]
    seen = 0
    for i, (stepped, states, metrics) in enumerate(watched.steps):
        if stepped != name:
            continue
        before = watched.steps[i - 1][1]
        if seen in bad:
            assert not metrics["loss"].isfinite()
            assert_same(states, before)
        else:
            assert metrics["loss"].isfinite()
            assert not torch.equal(
                next(iter(states[name]["module"].values())), next(iter(before[name]["module"].values()))
            )
        seen += 1
    assert watched.steps[-1][2]["loss"].isfinite()
    last = [metrics for stepped, _, metrics in watched.steps if stepped == name][-1]
    assert last["skipped batches"] == len(bad)
    assert engine[name].count == seen


def test_the_mean_of_an_accumulation_is_over_the_batches_that_were_not_left_out() -> None:
    spoiled = normalized("identity", low=(1, 4), accumulation=2, non_finite="skip", train_iters=8)
    spoiled.run()
    clean = normalized("identity", accumulation=2, train_iters=6)
    good = [batch for i, batch in enumerate(spoiled["lower"].train_data_loader) if i not in (1, 4)]
    clean["lower"].level.batches = Batches("lower", good, lambda: None)
    clean.run()
    for name in spoiled.problems:
        got, expected = (training_state(engine[name]) for engine in (spoiled, clean))
        assert_same({**got, "count": 0}, {**expected, "count": 0})


class Diverging:
    """A loss that stops being a number at some evaluations, counted in training only."""

    def __init__(self, *bad: int, always_from: int | None = None) -> None:
        self.bad, self.always_from, self.calls = bad, always_from, 0

    def __call__(self, problem: Given, batch: Any) -> Tensor:
        spoiled = self.calls in self.bad or (self.always_from is not None and self.calls >= self.always_from)
        self.calls += 1
        return ((problem.module() - 3).square().sum() / 2) * (NAN if spoiled else 1.0)


def alone(loss: Any, **config: Any) -> Engine:
    watched = Watched()
    return Engine([Given("p", loss)], config=EngineConfig(**config), callbacks=[watched])


def states(engine: Engine) -> list[dict[str, Any]]:
    (watched,) = (c for c in engine.callbacks.callbacks if isinstance(c, Watched))
    return [states for _, states, _ in watched.steps]


def test_restore_goes_back_to_the_last_copy() -> None:
    """Copies are taken before steps 1, 5 and 9: every ``log_step`` engine steps."""
    engine = alone(Diverging(6), non_finite="restore", log_step=4, train_iters=10)
    engine.run()
    after = states(engine)
    assert_same(after[6], after[3])
    assert not torch.equal(after[7]["p"]["module"]["value"], after[6]["p"]["module"]["value"])
    assert_same(after[7]["p"]["module"], after[4]["p"]["module"])  # nothing here is random


def test_restore_puts_every_problem_back() -> None:
    watched = Watched()
    engine = normalized("unroll", up=(2,), non_finite="restore", log_step=100, train_iters=12, watching=[watched])
    fresh = {name: cloned(training_state(p)) for name, p in normalized("unroll").problems.items()}
    engine.run()
    (at,) = (i for i, (_, _, metrics) in enumerate(watched.steps) if not metrics["loss"].isfinite())
    for name, state in fresh.items():
        del state["count"]
        assert_same(watched.steps[at][1][name], state)
    assert all(metrics["loss"].isfinite() for _, _, metrics in watched.steps[at + 1 :])


def test_restore_leaves_a_roll_back_nothing_to_return_to_from_before() -> None:
    """From where it was put back to, the run takes the way that it took from the start."""

    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper()).square().sum() * (NAN if engine.step_count == 6 else 1.0)

    engine = pair(
        lower,
        lambda p, b: (p.lower() - 1).square().sum() + p.module().square().sum(),
        steps=2,
        modules=(Vector(3.0), Vector(2.0)),
        engine=EngineConfig(non_finite="restore", roll_back=True, log_step=100, train_iters=14),
    )
    watched = Watched()
    engine.callbacks.callbacks.append(watched)
    engine.run()
    seen = [(name, {n: state["module"] for n, state in states.items()}) for name, states, _ in watched.steps]
    (at,) = (i for i, (_, _, metrics) in enumerate(watched.steps) if not metrics["loss"].isfinite())
    assert at == 9
    assert_same(seen[at + 1 : 2 * at + 1], seen[:at])


@pytest.mark.parametrize("every", [1, 3, 100])
def test_restore_gives_up_after_ten_times_in_a_row(every: int) -> None:
    engine = alone(Diverging(always_from=5), non_finite="restore", log_step=every, train_iters=1000)
    with pytest.raises(NonFiniteError, match=r"problem 'p': loss nan.*\nThe run was put back.*10 times"):
        engine.run()
    assert engine.step_count == 5 + 10


@pytest.mark.parametrize("every", [1, 3])
def test_restore_does_not_give_up_on_failures_that_pass(every: int) -> None:
    engine = alone(Diverging(*range(0, 200, 5)), non_finite="restore", log_step=every, train_iters=200)
    engine.run()
    assert engine.step_count == 200


def exploding(run_dir: Path, at: int, **config: Any) -> Engine:
    """An engine whose lower problem's gradient is not a number at one engine step, saved every other step."""

    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper()).square().sum() * (NAN if engine.step_count == at else 1.0)

    settings: dict[str, Any] = {"train_iters": 12, "checkpoint_every": 2, "run_dir": str(run_dir), **config}
    engine = pair(
        lower,
        lambda p, b: (p.lower() - 1).square().sum() + p.module().square().sum(),
        steps=3,
        modules=(Vector(3.0), Vector(2.0)),
        engine=EngineConfig(seed=0, **settings),
    )
    return engine


def saved_steps(run_dir: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (run_dir / "checkpoints").iterdir())


def test_no_checkpoint_is_written_of_what_nothing_could_go_on_from(tmp_path: Path) -> None:
    """Losses are looked at every 100 engine steps only; by then every checkpoint that is kept would be spoiled."""
    whole = exploding(tmp_path / "whole", at=-1)
    whole.run()
    engine = exploding(tmp_path / "run", at=3, keep=1)
    with pytest.raises(NonFiniteError, match=r"step 4: parameters of problem 'lower' are .* no checkpoint is written"):
        engine.run()
    assert saved_steps(tmp_path / "run") == [2]
    mended = exploding(tmp_path / "run", at=-1)
    assert mended.resume() == 2
    mended.run()
    assert_same(bits(mended), bits(whole))


def test_a_run_that_is_stopped_because_it_diverged_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_step_end(self, engine: Engine) -> None:
            if engine.last_metrics["lower"]["loss"].isnan():
                signal.raise_signal(signal.SIGINT)

    engine = exploding(tmp_path, at=4)
    engine.callbacks.callbacks.append(Stops())
    with (
        pytest.warns(CheckpointWarning, match="step 5: parameters of problem 'lower' are infinite or not a number"),
        pytest.raises(KeyboardInterrupt),
    ):
        engine.run()
    assert exploding(tmp_path, at=-1).resume() == 4


@pytest.mark.parametrize("mode", ["skip", "restore"])
def test_parameters_that_overflow_are_not_saved_under_any_mode(mode: str, tmp_path: Path) -> None:
    class Overflows(Callback):
        def on_step_end(self, engine: Engine) -> None:
            if engine.step_count == 6:
                with torch.no_grad():
                    engine["upper"].module.value.fill_(float("inf"))

    engine = exploding(tmp_path, at=-1, train_iters=6, non_finite=mode)
    engine.callbacks.callbacks.append(Overflows())
    with pytest.warns(CheckpointWarning, match="step 6: parameters of problem 'upper'"):
        engine.run()
    assert saved_steps(tmp_path) == [0, 2, 4]


@pytest.mark.parametrize("mode", ["skip", "restore"])
@pytest.mark.parametrize("roll_back", [False, True])
@pytest.mark.parametrize("at", [3, 5, 6, 9])
def test_a_run_that_met_such_numbers_goes_on_from_a_file_to_the_same_bits(
    mode: str, roll_back: bool, at: int, tmp_path: Path
) -> None:
    def built(**config: Any) -> Engine:
        settings = {"non_finite": mode, "roll_back": roll_back, "log_step": 3, "seed": 0, **config}
        return normalized("unroll", low=(4, 5), up=(2,), **settings)

    whole = built(train_iters=12)
    whole.run()
    stopped = built(train_iters=at, run_dir=str(tmp_path), checkpoint_every=100)
    stopped.run()
    resumed = built(train_iters=12, run_dir=str(tmp_path), checkpoint_every=100)
    assert resumed.resume() == at
    resumed.run()
    assert_same(bits(resumed), bits(whole))
    assert all(p.isfinite().all() for problem in resumed.problems.values() for p in problem.parameters)
