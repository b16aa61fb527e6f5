"""Ctrl-C and SIGTERM: the level step is finished, the run is saved, and it goes on to the bits it would have had."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from multilevel import Callback, Config, Engine, EngineConfig, Problem
from multilevel.engine.checkpoints.file import read_checkpoint
from multilevel.engine.interruption import HANDLED, Interrupted
from multilevel.hypergrad.errors import CheckpointWarning
from multilevel.problems.batches import Batches

from ..givens import Given, assert_same, bits, chain

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LEVEL_STEPS = 14
"""Of the run below: the lowest level takes 8, the one above it 4, the top one 2."""
Event = Callable[[], object]


class At(Callback):
    """Does something at the level steps of given numbers, counted from 0, or at another moment of the run."""

    def __init__(self, *numbers: int, event: Event = lambda: None, moment: str = "level step") -> None:
        self.numbers, self.event, self.moment, self.seen = numbers, event, moment, 0

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
        if self.moment == "level step" and self.seen in self.numbers:
            self.event()
        self.seen += 1

    def on_run_start(self, engine: Engine) -> None:
        self._meet("run start")

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count == 8:
            self._meet("last step")

    def on_validation(self, engine: Engine, metrics: Any) -> None:
        self._meet("validation")

    def _meet(self, moment: str) -> None:
        if self.moment == moment:
            self.event()


class Validated(Engine):
    def validation(self) -> dict[str, float]:
        return {"low": self["low"].module().item()}


def built(run_dir: Path | None, *watching: Callback, every: int = 0) -> Engine:
    """Three levels that draw random numbers and batches, newly built."""
    torch.manual_seed(0)

    def loss(problem: Given, batch: list[Tensor]) -> Tensor:
        around = sum(other() for other in (*problem.uppers, *problem.lowers))
        return (problem.module() - 0.3 * around - batch[0].mean() + 0.1 * torch.randn(())).square().sum() / 2

    def part(name: str, **config: Any) -> Given:
        data = DataLoader(TensorDataset(torch.linspace(-1, 1, 10)), 3, shuffle=True)
        return Given(name, loss, train_data_loader=data, config=Config(**config))

    problems = [
        part("top"),
        part("mid", type={"name": "cg", "warm_start": True}, unroll_steps=2),
        part("low", type={"name": "unroll", "checkpoints": "all"}, unroll_steps=2),
    ]
    where = str(run_dir) if run_dir is not None else None
    config = EngineConfig(train_iters=8, seed=0, valid_step=4, run_dir=where, checkpoint_every=every)
    return Validated(problems, edges=chain("top", "mid", "low"), config=config, callbacks=watching)


@pytest.fixture
def whole() -> dict[str, Any]:
    engine = built(None, At())
    engine.run()
    assert sum(problem.count for problem in engine.problems.values()) == LEVEL_STEPS
    return bits(engine)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(engine: Engine, number: int = signal.SIGINT) -> Interrupted:
    with pytest.raises(Interrupted) as caught:
        engine.run()
    assert (caught.value.signal, caught.value.exit_code) == (number, CODES[signal.Signals(number)])
    assert isinstance(caught.value, KeyboardInterrupt)
    return caught.value


def raising(number: int) -> Event:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("at", range(LEVEL_STEPS))
def test_stopped_after_any_level_step_it_ends_the_same(at: int, number: int, tmp_path: Path, whole: Any) -> None:
    stopped = built(tmp_path, At(at, event=raising(number)))
    interrupted(stopped, number)
    assert sum(problem.count for problem in stopped.problems.values()) == at + 1
    resumed = built(tmp_path, At())
    assert resumed.resume() == stopped.step_count
    assert_same(bits(resumed), bits(stopped))
    resumed.run()
    assert_same(bits(resumed), whole)


@pytest.mark.parametrize(("steps", "counts"), [(1, (2, 0, 0)), (2, (2, 1, 0)), (4, (4, 2, 0))])
def test_a_signal_in_the_middle_of_a_level_step_lets_it_finish(
    steps: int, counts: tuple[int, ...], tmp_path: Path, capfd: Any, whole: Any
) -> None:
    stopped = built(tmp_path, At())
    low = stopped["low"]
    loss = low.loss

    def signalled(problem: Given, batch: Any) -> Tensor:
        if problem.level.update.steps == steps:  # it just stepped: in the sweep of the level above
            problem.loss = loss
            os.kill(os.getpid(), signal.SIGINT)
        return loss(problem, batch)

    low.loss = signalled
    interrupted(stopped)
    assert tuple(stopped[name].count for name in ("low", "mid", "top")) == counts
    assert "finishing the current level step" in capfd.readouterr().err
    resumed = built(tmp_path, At())
    resumed.resume()
    resumed.run()
    assert_same(bits(resumed), whole)


@pytest.mark.parametrize("moment", ["run start", "validation", "last step"])
def test_a_signal_at_another_moment_stops_it_too(moment: str, tmp_path: Path, whole: Any) -> None:
    stopped = built(tmp_path, At(event=raising(signal.SIGTERM), moment=moment))
    interrupted(stopped, signal.SIGTERM)
    resumed = built(tmp_path, At())
    resumed.resume()
    resumed.run()
    assert_same(bits(resumed), whole)


def test_a_signal_while_a_checkpoint_is_written_lets_it_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    stopped = built(tmp_path, every=3)
    sync, calls = os.fsync, []

    def synced(number: int) -> None:
        calls.append(number)
        if len(calls) == 3:  # a file and its folder are synced; this is the second file
            signal.raise_signal(signal.SIGTERM)
        sync(number)

    monkeypatch.setattr(os, "fsync", synced)
    interrupted(stopped, signal.SIGTERM)
    assert stopped.step_count == 3
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000000.pt",
        "step-00000003.pt",
    ]
    resumed = built(tmp_path, At(), every=3)
    assert resumed.resume() == 3
    resumed.run()
    assert_same(bits(resumed), whole)


def test_the_same_engine_goes_on_when_it_is_run_again(whole: Any) -> None:
    engine = built(None, At(0, 4, 5, 13, event=raising(signal.SIGINT)))
    for _ in range(4):
        interrupted(engine)
    engine.run()
    assert_same(bits(engine), whole)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    interrupted(built(None, At(3, event=raising(signal.SIGINT))))
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # a second SIGTERM is no second Ctrl-C
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    engine = built(tmp_path, At(5, event=twice), every=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        engine.run()
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    newest = max((tmp_path / "checkpoints").iterdir())
    assert newest.name == "step-00000002.pt"
    assert read_checkpoint(newest)["progress"]["step_count"] == 2


def test_ctrl_c_while_the_stopped_run_is_saved_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    engine = built(tmp_path, At(7, event=raising(signal.SIGINT)), every=2)
    sync = os.fsync

    def impatient(number: int) -> None:
        if engine.step_count == 4 and engine["low"].count == 5:
            signal.raise_signal(signal.SIGINT)
        sync(number)

    monkeypatch.setattr(os, "fsync", impatient)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    monkeypatch.undo()
    assert all(path.name.startswith("step-") for path in (tmp_path / "checkpoints").iterdir())
    resumed = built(tmp_path, At(), every=2)
    assert resumed.resume() == 4
    resumed.run()
    assert_same(bits(resumed), whole)


def test_where_it_cannot_be_saved_it_stops_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.warns(CheckpointWarning, match=r"step 1: no checkpoint could be .*the run ends here; there is none"):
        interrupted(built(tmp_path, At(1, event=raising(signal.SIGTERM))), signal.SIGTERM)


@pytest.mark.parametrize("ending", ["done", "interrupted", "failed"])
def test_handlers_are_put_back(ending: str) -> None:
    def boom() -> None:
        raise OSError("boom")

    event = {"done": lambda: None, "interrupted": raising(signal.SIGTERM), "failed": boom}[ending]
    before = [signal.getsignal(number) for number in HANDLED]
    during: list[Any] = []

    def look() -> None:
        during.extend(signal.getsignal(number) for number in HANDLED)
        event()

    engine = built(None, At(2, event=look))
    if ending == "done":
        engine.run()
    else:
        with pytest.raises((Interrupted, OSError)):
            engine.run()
    assert [signal.getsignal(number) for number in HANDLED] == before
    assert all(a != b for a, b in zip(during, before, strict=True))


@pytest.mark.parametrize("number", CODES)
def test_a_programs_own_handler_is_left_alone(number: int, whole: Any) -> None:
    calls: list[int] = []

    def own(received: int, frame: Any) -> None:
        calls.append(received)

    signal.signal(number, own)
    engine = built(None, At(3, event=raising(number)))
    engine.run()
    assert calls == [number]
    assert signal.getsignal(number) is own
    assert_same(bits(engine), whole)


def test_a_signal_that_the_program_ignores_is_ignored(whole: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    engine = built(None, At(3, event=raising(signal.SIGINT)))
    engine.run()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert_same(bits(engine), whole)


def test_a_handler_that_is_installed_during_the_run_stays() -> None:
    def own(received: int, frame: Any) -> None:
        pass

    built(None, At(2, event=lambda: signal.signal(signal.SIGTERM, own))).run()
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_inside_a_run_leaves_the_signal_to_the_outer_one(tmp_path: Path) -> None:
    inner = built(None, At(1, event=raising(signal.SIGINT)))
    outer = built(tmp_path, At(3, event=inner.run))
    interrupted(outer)
    assert inner.step_count == 8
    assert sum(problem.count for problem in outer.problems.values()) == 4


def test_in_another_thread_nothing_is_installed(whole: Any) -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    during: list[Any] = []
    engine = built(None, At(2, event=lambda: during.extend(signal.getsignal(number) for number in HANDLED)))
    thread = threading.Thread(target=engine.run)
    thread.start()
    thread.join()
    assert during == before
    assert_same(bits(engine), whole)


def asleep() -> None:
    time.sleep(0.2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_process_that_is_forked_in_the_run_is_ended_as_ever_and_lives_through_ctrl_c(
    number: int, code: int, capfd: Any
) -> None:
    def fork() -> None:
        process = multiprocessing.get_context("fork").Process(target=asleep)
        process.start()
        time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(5)
        assert process.exitcode == code

    built(None, At(2, event=fork)).run()
    assert "finishing" not in capfd.readouterr().err


def test_workers_that_die_with_the_signal_do_not_keep_the_run_from_being_saved(tmp_path: Path) -> None:
    def lose() -> None:
        """What a SIGTERM to all processes does."""
        signal.raise_signal(signal.SIGTERM)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        time.sleep(0.1)  # for SIGCHLD

    def with_worker(run_dir: Path, event: Event = lambda: None) -> Engine:
        engine = built(run_dir, At(5, event=event))
        data = TensorDataset(torch.linspace(-1, 1, 10))
        engine["mid"].level.batches = Batches("mid", DataLoader(data, 3, shuffle=True, num_workers=1), lambda: None)
        return engine

    interrupted(with_worker(tmp_path / "run", lose), signal.SIGTERM)
    resumed = with_worker(tmp_path / "run")
    resumed.resume()
    resumed.run()
    whole = with_worker(tmp_path / "whole")
    whole.run()
    assert_same(bits(resumed), bits(whole))


def test_a_second_sigterm_while_the_stopped_run_is_saved_lets_it_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    engine = built(tmp_path, At(7, event=raising(signal.SIGTERM)))
    sync = os.fsync

    def urged(number: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        sync(number)

    monkeypatch.setattr(os, "fsync", urged)
    interrupted(engine, signal.SIGTERM)
    monkeypatch.undo()
    resumed = built(tmp_path, At())
    assert resumed.resume() == 4
    resumed.run()
    assert_same(bits(resumed), whole)
