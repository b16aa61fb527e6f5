"""What is written of a run, when, by whom; and that no logger ends a run that has begun."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel import LoggerWarning
from multilevel.engine.callbacks import Callback
from multilevel.engine.loggers import Logger, Record, base
from multilevel.hypergrad.errors import ConfigError

from .fakes import checkpoint, fake_engine, restore, run, steps


class Memory(Logger):
    """Keeps what it is given; raises where it is told to."""

    def __init__(self, fails: Any = ()) -> None:
        super().__init__()
        self.fails = fails
        self.records: list[Record] = []
        self.opened = 0
        self.closed: list[BaseException | None] = []

    def open(self, engine: Any) -> None:
        self.opened += 1

    def write(self, record: Record) -> None:
        if record.step in self.fails:
            raise OSError(28, "No space left on device")
        record.metrics["loss"].item() if record.problem else None
        self.records.append(record)

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)

    def seen(self) -> list[tuple[str, int, int | None]]:
        return [(record.source, record.step, record.count) for record in self.records]


def test_metrics_are_written_every_log_step_and_at_the_end_and_only_those_are_fetched():
    logger = Memory()
    losses = run(fake_engine(lower=-1), logger)
    problems = [record for record in logger.seen() if record[0] == "lower"]
    assert problems == [("lower", 10, 10), ("lower", 20, 20), ("lower", 25, 25)]
    assert sum(loss.fetched for loss in losses) == len(problems)


def test_a_problem_may_have_a_log_step_of_its_own_by_the_engine_step_it_was_in():
    logger = Memory()
    run(fake_engine(lower=-1, upper=7), logger)
    assert [s for s in logger.seen() if s[0] == "upper"] == [("upper", n, n) for n in (7, 14, 21, 25)]


def test_a_level_that_did_not_step_is_not_written_again():
    engine, logger = fake_engine(upper=-1), Memory()
    engine.last_metrics["upper"] = {"loss": torch.tensor(1.0)}
    logger.on_run_start(engine)
    for step in (10, 20):
        engine.step_count = step
        logger.on_step_end(engine)
    logger.on_run_end(engine)
    assert logger.seen() == [("upper", 10, 0)]


def test_validations_are_records_without_a_problem():
    logger = Memory()
    run(fake_engine(lower=-1), logger, until=5)
    assert logger.seen() == [("validation", 5, None), ("lower", 5, 5)]


@pytest.mark.parametrize("error", [None, RuntimeError("boom"), KeyboardInterrupt()])
def test_a_logger_is_closed_once_and_told_how_the_run_ended(error):
    engine, logger = fake_engine(lower=-1), Memory()
    logger.on_run_start(engine)
    steps(engine, [logger], 3)
    logger.on_run_end(engine) if error is None else logger.on_exception(engine, error)
    logger.on_exception(engine, RuntimeError("later"))
    assert logger.closed == [error]
    before = len(logger.records)
    steps(engine, [logger], 25)
    assert len(logger.records) == before


def test_a_logger_that_raises_is_reported_once_and_tried_again():
    logger, other = Memory(fails=(5, 10)), Memory()
    with pytest.warns(LoggerWarning, match=r"logger 'Memory': OSError: .*No space left.* run goes on") as caught:
        run(fake_engine(lower=-1), logger, other)
    assert len(caught) == 1
    assert [s for s in other.seen() if s[1] not in (5, 10)] == logger.seen()
    assert logger.seen()[-1] == ("lower", 25, 25)


def test_what_could_not_be_written_is_written_at_the_end_where_it_is_still_the_last():
    engine, logger = fake_engine(lower=-1), Memory(fails=(10,))
    with pytest.warns(LoggerWarning):
        run(engine, logger, until=10)
    assert ("lower", 10, 10) not in logger.seen()
    logger.fails = ()
    logger.on_run_start(engine)
    logger.on_run_end(engine)
    assert logger.seen()[-1] == ("lower", 10, 10)


def test_a_logger_that_fails_slowly_is_given_a_rest(monkeypatch):
    """A server that is gone may block for minutes; asking it with every record would stop the run."""
    now = 0.0
    monkeypatch.setattr(base.time, "perf_counter", lambda: now)

    class Slow(Memory):
        def write(self, record: Record) -> None:
            nonlocal now
            asked.append(record.step)
            if record.step <= 10:
                now += 4.0
                raise ConnectionError("no answer")

    asked: list[int] = []

    class Clock(Callback):
        def on_step_end(self, engine: Any) -> None:
            nonlocal now
            now += 1.0

    with pytest.warns(LoggerWarning, match="no answer"):
        run(fake_engine(log_step=1, lower=-1), Clock(), Slow(), until=200)
    assert asked[:2] == [1, 81]
    assert asked[2:] == sorted([*range(82, 201), *range(85, 201, 5)])


def test_an_interruption_is_not_swallowed():
    class Stopped(Memory):
        def write(self, record: Record) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fake_engine(lower=-1), Stopped())


def test_a_logger_that_cannot_start_ends_the_run_before_it_begins():
    class Broken(Memory):
        def open(self, engine: Any) -> None:
            raise PermissionError(13, "Permission denied", "somewhere")

    logger = Broken()
    with pytest.raises(ConfigError, match=r"logger 'Broken': cannot start: PermissionError: .*somewhere.* leave the"):
        logger.on_run_start(fake_engine(lower=-1))
    assert len(logger.closed) == 1


def test_only_the_first_process_writes(monkeypatch):
    monkeypatch.setattr(base, "is_first_process", lambda: False)
    logger = Memory(fails=range(100))
    losses = run(fake_engine(lower=-1, upper=7), logger)
    assert (logger.opened, logger.records, logger.closed) == (0, [], [])
    assert not any(loss.fetched for loss in losses)


def test_seconds_and_what_was_written_go_on_from_a_checkpoint(monkeypatch):
    now = 100.0
    monkeypatch.setattr(base.time, "perf_counter", lambda: now)
    engine, logger = fake_engine(lower=-1), Memory()
    logger.on_run_start(engine)
    now += 7.0
    steps(engine, [logger], 10)
    state = checkpoint(engine, logger)
    now += 1000.0
    again, other = Memory(), fake_engine(lower=-1)
    restore(other, again, state)
    again.on_run_start(other)
    now += 2.0
    again.on_run_end(other)
    assert again.records == []  # written before the checkpoint already
    other.step_count = 15
    again.on_run_start(other)
    again.on_validation(other, {})
    assert again.records[0].seconds == 9.0


def test_a_metric_that_another_callback_adds_is_written_too():
    engine, logger = fake_engine(lower=1), Memory()
    logger.on_run_start(engine)
    metrics: dict[str, Any] = {"loss": torch.tensor(1.0)}
    metrics["gradient norm"] = 2.0  # a monitor that stands in front of the logger
    engine.problems["lower"].count = 1
    logger.on_level_step(engine, engine.problems["lower"], metrics)
    assert logger.records[0].metrics["gradient norm"] == 2.0


@pytest.mark.filterwarnings("error")
def test_a_warning_turned_into_an_error_is_the_users_choice():
    with pytest.raises(LoggerWarning):
        run(fake_engine(lower=-1), Memory(fails=(10,)))
