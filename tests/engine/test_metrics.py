"""What is written of a run, and what it costs: nothing is fetched from the device that is not written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from multilevel.configs import Config, EngineConfig
from multilevel.engine.callbacks.progress import ProgressBar
from multilevel.engine.loggers.jsonl import MetricsFile
from multilevel.engine.metrics import brief, plain, scalars


class Watched:
    """A tensor that counts how often it is fetched."""

    def __init__(self, value: float) -> None:
        self.value, self.fetched = torch.tensor(value), 0
        self.shape, self.size = self.value.shape, self.value.size

    def item(self) -> float:
        self.fetched += 1
        return self.value.item()

    def tolist(self) -> Any:
        self.fetched += 1
        return self.value.tolist()


def fake_engine(log_step: int = 10, **problems: int) -> Any:
    """As much of an engine as a callback sees; ``problems`` gives each one's own log_step."""
    return SimpleNamespace(
        step_count=0,
        config=EngineConfig(train_iters=25, log_step=log_step),
        problems={n: SimpleNamespace(name=n, count=0, config=Config(log_step=s)) for n, s in problems.items()},
        last_metrics={},
    )


def train(engine: Any, callback: Any, steps: int) -> list[Watched]:
    losses: list[Watched] = []
    callback.on_run_start(engine)
    for _ in range(steps):
        for name, problem in engine.problems.items():
            problem.count += 1
            losses.append(Watched(float(problem.count)))
            engine.last_metrics[name] = {"loss": losses[-1]}
            callback.on_level_step(engine, problem, engine.last_metrics[name])
        engine.step_count += 1
        callback.on_step_end(engine)
    callback.on_run_end(engine)
    return losses


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_written_every_log_step_and_at_the_end(tmp_path):
    losses = train(fake_engine(lower=-1), MetricsFile(tmp_path / "m.jsonl"), 25)
    written = records(tmp_path / "m.jsonl")
    assert [r["step"] for r in written] == [10, 20, 25]
    assert [r["metrics"]["loss"] for r in written] == [10.0, 20.0, 25.0]
    assert {r["problem"] for r in written} == {"lower"}
    assert sum(loss.fetched for loss in losses) == len(written)


def test_a_problem_may_have_a_log_step_of_its_own(tmp_path):
    train(fake_engine(lower=-1, upper=7), MetricsFile(tmp_path / "m.jsonl"), 25)
    counts = {
        name: [r["count"] for r in records(tmp_path / "m.jsonl") if r["problem"] == name] for name in ("lower", "upper")
    }
    assert counts == {"lower": [10, 20, 25], "upper": [7, 14, 21, 25]}


def test_a_level_that_did_not_step_is_not_written_again(tmp_path):
    engine = fake_engine(upper=-1)
    engine.last_metrics["upper"] = {"loss": torch.tensor(1.0)}
    callback = MetricsFile(tmp_path / "m.jsonl")
    callback.on_run_start(engine)
    for step in (10, 20):
        engine.step_count = step
        callback.on_step_end(engine)
    callback.on_run_end(engine)
    assert len(records(tmp_path / "m.jsonl")) == 1


def test_validations_are_written_and_survive_an_exception(tmp_path):
    engine = fake_engine(lower=-1)
    callback = MetricsFile(tmp_path / "m.jsonl")
    callback.on_run_start(engine)
    callback.on_validation(engine, {"accuracy": torch.tensor(0.5), "per_class": torch.tensor([1.0, 2.0])})
    callback.on_exception(engine, RuntimeError())
    assert records(tmp_path / "m.jsonl")[0]["validation"] == {"accuracy": 0.5, "per_class": [1.0, 2.0]}


def test_plain_is_json_whatever_the_metric():
    value = {"a": torch.tensor(2), "b": np.float32(0.5), "c": float("nan"), "d": [torch.tensor([1.0, float("inf")])],
             "e": None, "f": "text", "g": object, 3: True}  # fmt: skip
    written = json.loads(json.dumps(plain(value), allow_nan=False))
    assert written == {
        "a": 2,
        "b": 0.5,
        "c": "nan",
        "d": [[1.0, "inf"]],
        "e": None,
        "f": "text",
        "g": str(object),
        "3": True,
    }


def test_scalars_are_the_single_numbers():
    metrics = {"a": torch.tensor([0.25]), "b": 3, "c": torch.ones(2), "d": "x", "e": np.float64(2.5), "f": True}
    assert scalars(metrics) == {"a": 0.25, "b": 3.0, "e": 2.5}
    assert scalars(None) == {}
    assert brief(metrics) == "a 0.25, b 3, e 2.5"


@pytest.mark.parametrize(("interval", "fetched"), [(1e9, 1), (0.0, 26)])
def test_the_bar_fetches_a_loss_only_when_it_is_drawn(interval, fetched, capsys):
    losses = train(fake_engine(lower=-1), ProgressBar("toy", interval), 25)
    assert sum(loss.fetched for loss in losses) == fetched
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "toy" in last
    assert "25/25" in last
    assert "lower 25" in last


def test_the_bar_prints_validations_and_closes_on_errors(capsys):
    engine, bar = fake_engine(lower=-1), ProgressBar("toy")
    bar.on_run_start(engine)
    bar.on_validation(engine, {"accuracy": torch.tensor(0.5)})
    bar.on_exception(engine, KeyboardInterrupt())
    bar.on_step_end(engine)
    assert "step 0: accuracy 0.5" in capsys.readouterr().err
