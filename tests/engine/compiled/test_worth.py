"""What a run is too short for is not compiled, and what is spent on compiling is no part of what steps take."""

from __future__ import annotations

import time
import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from multilevel.engine.compiled import Pace, programs, reads, worth
from multilevel.engine.compiled.worth import too_late
from multilevel.hypergrad.errors import CompileWarning

from .builds import bilevel
from .twins import Twins

adam = partial(torch.optim.Adam, lr=0.01)


def taking(*seconds: float, every: int = 1, start: int = 0, train_iters: int = 1000) -> Any:
    """The pace of steps that took so long, and the engine after them."""
    engine: Any = SimpleNamespace(step_count=start, config=SimpleNamespace(train_iters=train_iters))
    pace = Pace(engine)
    for each in seconds:
        pace.took({"forward": each / 2, "backward": each / 2, "sweep": each, "data": 99.0})
        engine.step_count += every
    return pace


def test_a_step_that_is_slow_is_not_taken_for_all() -> None:
    for seconds in ((50.0, 0.1), (50.0, 0.1, 0.1), (50.0, 0.1, 7.0, 0.1, 0.05)):
        assert taking(*seconds).left("forward", "backward") == pytest.approx(0.1 * (1000 - len(seconds)))


def test_the_steps_that_are_left_are_those_of_the_problem() -> None:
    assert taking(1.0, 1.0, 1.0, every=5).left("sweep") == pytest.approx((1000 - 15) / 5)
    resumed = taking(1.0, 1.0, 1.0, every=5, start=600)
    assert resumed.left("sweep") == pytest.approx((1000 - 615) / 5)


def test_evaluations_of_one_step_are_one_step() -> None:
    """Stepped as L-BFGS does, whose watch runs on."""
    pace, laps = taking(9.0, 1.0), {"forward": 0.0}
    for _ in range(20):
        laps["forward"] += 0.05
        pace.took(laps)
    assert pace.left("forward", "backward") == pytest.approx(998.0)


@pytest.mark.parametrize("begun", [False, True])
def test_what_pays_pays_with_less_to_compile_and_more_to_do(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth.sys, "modules", {"torch._inductor.compile_fx": None} if begun else {})
    pays = [[too_late(left, n) is None for n in (0, 30, 300, 3000)] for left in (0.0, 10.0, 60.0, 300.0, 1e4)]
    assert pays[0] == [False] * 4
    assert pays[-1] == [True] * 4
    for row in pays:
        assert row == sorted(row, reverse=True)
    for column in zip(*pays, strict=True):
        assert list(column) == sorted(column)
    assert too_late(1e4, 0, programs=10**6) is not None


@pytest.mark.parametrize("method", ["darts", "unroll"])
def test_a_run_that_is_too_short_is_neither_read_nor_recorded(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(reads.Reads, "look", lambda self, batches: looked.append(batches))
    twins = Twins(bilevel(method, optimizer=adam, unroll_steps=2), train_iters=20)
    with pytest.warns(CompileWarning) as caught:
        twins.step(20)
    twins.assert_equal(within=0.0)
    assert not looked
    said = [str(warning.message) for warning in caught]
    assert [each.split(":")[0] for each in said] == [
        f"problem '{name}' is not compiled and runs eagerly" for name in ("lower", "upper")
    ]
    assert all("s more until train_iters, of which a program saves about half, and" in each for each in said)


@pytest.mark.usefixtures("recorded")
def test_a_run_that_is_too_short_for_all_the_operations_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "FIRST", 0.0)
    monkeypatch.setattr(Pace, "left", lambda self, *parts: 2 * worth.EACH + worth.PER_OPERATION)
    recorded: list[Any] = []
    record = programs.record
    monkeypatch.setattr(programs, "record", lambda *given, **how: recorded.append(1) or record(*given, **how))
    twins = Twins(bilevel("identity", optimizer=adam))
    with pytest.warns(CompileWarning) as caught:
        twins.step(10)
    twins.assert_equal(within=0.0)
    assert len(recorded) == 3  # the upper's with and without what is below it
    assert all(str(warning.message).startswith("problem '") for warning in caught)


SECONDS = 0.3


def test_compiling_is_a_part_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in a step it takes place: before it, on the way back through the lower's steps, in the optimizers'."""
    import torch._inductor

    made: list[Any] = []

    def slowly(graph: Any, examples: Any, **options: Any) -> Any:
        made.append(graph)
        time.sleep(SECONDS)
        return lambda *tensors: graph(*tensors)

    monkeypatch.setattr(torch._inductor, "standalone_compile", slowly)
    twins = Twins(bilevel("unroll", unroll_steps=2, optimizer=adam, module=lambda: nn.Linear(2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twins.step(20)
    assert len(made) == 5  # the lower's step, two ways back through it, its optimizer's step, and the upper's
    eager, compiled = (list(engine.times.values()) for engine in twins.engines)
    assert all(times.compile == 0.0 for times in eager)
    assert sum(times.compile for times in compiled) > SECONDS * len(made)
    for times in compiled:
        assert all(getattr(times, part) < SECONDS for part in ("data", "forward", "backward", "sweep", "update"))
