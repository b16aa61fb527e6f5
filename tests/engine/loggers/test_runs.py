"""Loggers in real runs: stopped, saved and resumed; and runs that are the same with and without them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Callback, Config, Engine, EngineConfig, LoggerWarning
from multilevel.configs.logger_choice import logger_settings
from multilevel.engine.loggers import Logger, build_loggers
from multilevel.hypergrad.errors import ConfigError

from ...givens import Given, assert_same, flat_state
from .fakes import records


class Toy(Engine):
    def validation(self) -> dict[str, Any]:
        return {"distance": (self["lower"].module() - 1).abs().sum()}


def follow(problem: Given, batch: Any) -> Any:
    noise = 0.1 * torch.randn(1)
    loss = (problem.module() - problem.upper() - noise).square().sum() / 2
    return {"loss": loss, "noise": noise.sum()}


def want_one(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum() / 2


def toy(folder: Path, *further: Callback, lower: Any = follow, iters: int = 23, **config: Any) -> Toy:
    problems = [
        Given("upper", want_one, config=Config(log_step=3)),
        Given("lower", lower, config=Config(type="identity", unroll_steps=2)),
    ]
    settings = EngineConfig(
        train_iters=iters, valid_step=6, log_step=4, seed=0, run_dir=str(folder), checkpoint_every=5, **config
    )
    loggers = build_loggers(logger_settings(["jsonl", "csv"]), folder)
    return Toy(problems, edges=[("upper", "lower")], config=settings, callbacks=[*loggers, *further])


class Stop(Callback):
    """Ends a run in the middle of things."""

    def __init__(self, problem: str, count: int, how: Any) -> None:
        self.when, self.how = (problem, count), how

    def on_level_step(self, engine: Engine, problem: Any, metrics: Any) -> None:
        if (problem.name, problem.count) == self.when:
            self.how()


def fail() -> None:
    raise RuntimeError("boom")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def timeless(folder: Path) -> tuple[list[dict[str, Any]], list[list[str]]]:
    lines = [{k: v for k, v in record.items() if k != "seconds"} for record in records(folder / "metrics.jsonl")]
    rows = [row.split(",") for row in (folder / "metrics.csv").read_text().splitlines()]
    return lines, [[*row[:1], *row[2:]] for row in rows]


@pytest.mark.parametrize("how", [fail, interrupt])
@pytest.mark.parametrize(("problem", "count"), [("lower", 7), ("upper", 6), ("lower", 18)])
def test_a_run_that_was_stopped_and_resumed_leaves_the_lines_of_an_uninterrupted_one(tmp_path, problem, count, how):
    toy(tmp_path / "whole").run()
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        toy(tmp_path / "parts", Stop(problem, count, how)).run()
    again = toy(tmp_path / "parts", Stop("none", 0, fail))
    assert again.resume() is not None
    again.run()
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_a_run_learns_the_same_with_loggers_and_without(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")

    def learned(folder: Path, *names: Any) -> dict[str, Tensor]:
        engine = toy(folder, *build_loggers(logger_settings(names), folder), iters=9)
        engine.run()
        return {**flat_state(engine), "next": torch.rand(3)}

    trackers = ("tensorboard", {"name": "wandb", "mode": "offline"}, "mlflow")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert_same(learned(tmp_path / "with", *trackers), learned(tmp_path / "without"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_logger_that_raises_changes_nothing_of_the_run(tmp_path):
    class Broken(Logger):
        def open(self, engine: Engine) -> None: ...

        def write(self, record: Any) -> None:
            raise RuntimeError("a bug")

        def close(self, error: BaseException | None) -> None:
            raise RuntimeError("another")

    whole = toy(tmp_path / "whole")
    whole.run()
    broken = toy(tmp_path / "broken", Broken())
    with pytest.warns(LoggerWarning, match="logger 'Broken': RuntimeError: a bug") as caught:
        broken.run()
    assert len(caught) == 1
    assert_same(flat_state(broken), flat_state(whole))
    assert timeless(tmp_path / "broken") == timeless(tmp_path / "whole")


def test_one_that_cannot_start_ends_the_run_before_it_begins_and_closes_the_others(tmp_path):
    class Broken(Logger):
        def open(self, engine: Engine) -> None:
            raise RuntimeError("no such server")

        def write(self, record: Any) -> None: ...

        def close(self, error: BaseException | None) -> None: ...

    engine = toy(tmp_path, Broken())
    with pytest.raises(ConfigError, match="logger 'Broken': cannot start: RuntimeError: no such server"):
        engine.run()
    assert engine["lower"].count == 0
    assert records(tmp_path / "metrics.jsonl") == []


def test_the_steps_of_records_are_the_engine_steps_they_were_measured_in(tmp_path):
    toy(tmp_path).run()
    written = records(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in written if "validation" in r] == [6, 12, 18, 23]
    assert [r["step"] for r in written if r.get("problem") == "lower"] == [4, 8, 12, 16, 20, 23]
    # Two steps of the lower for one of the upper, whose third is in the sixth engine step.
    upper = [(r["step"], r["count"]) for r in written if r.get("problem") == "upper"]
    assert upper == [(6, 3), (12, 6), (18, 9), (23, 11)]
