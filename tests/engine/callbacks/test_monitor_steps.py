"""The monitor measures the level steps that are written, no others, and fetches nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel import Callback, Config, Engine, EngineConfig, Problem
from multilevel.engine.callbacks import Monitor, monitor

from ...givens import Given, alone, hierarchy
from .written import Written

GRAPHS: list[tuple[dict[str, list[str]], dict[str, dict[str, int]]]] = [
    ({"up": ["low"]}, {}),
    ({"up": ["low"]}, {"low": {"unroll_steps": 3}}),
    ({"up": ["low"]}, {"low": {"unroll_steps": 4, "gradient_accumulation": 2, "warmup_steps": 3}}),
    ({"up": ["v", "w"]}, {"v": {"unroll_steps": 2}, "w": {"unroll_steps": 3}}),
    ({"top": ["mid"], "mid": ["low"]}, {"low": {"unroll_steps": 2, "log_step": 5}, "mid": {"unroll_steps": 3}}),
    ({"u": ["low"], "v": ["low", "slow"]}, {"slow": {"unroll_steps": 3}, "u": {"log_step": 4}}),
]


@pytest.mark.parametrize(("graph", "configs"), GRAPHS)
@pytest.mark.parametrize("log_step", [1, 4, 7, 100])
def test_whatever_is_written_was_measured(graph, configs, log_step):
    engine = hierarchy(graph, **configs)
    engine.config = EngineConfig(train_iters=30, log_step=log_step, device="cpu")
    engine.callbacks.callbacks += [Monitor(), written := Written()]
    engine.run()
    assert {record.problem for record in written.records} == set(engine.problems)
    for record in written.records:
        of_upper = bool(engine[record.problem].lowers)
        assert ("hypergradient norm" if of_upper else "gradient norm") in record.metrics
        assert "lr" in record.metrics


def test_a_run_that_a_validation_ends_writes_its_last_norms():
    class Ending(Engine):
        def validation(self):
            return {"score": 1.0}

    config = EngineConfig(
        train_iters=50, valid_step=3, early_stopping={"metric": "score", "patience": 2}, monitor=True, device="cpu"
    )
    problem = Given("only", lambda p, batch: p.module().square().sum())
    engine = Ending([problem], config=config, callbacks=[written := Written()])
    engine.run()
    assert engine.step_count == 9
    assert len(written.of("only", "gradient norm")) == 1


@pytest.mark.parametrize(("log_step", "own", "measured"), [(5, -1, [5, 10, 15, 20, 23]), (5, 7, [7, 14, 21, 23])])
def test_a_problem_is_measured_on_no_other_steps(log_step, own, measured, monkeypatch):
    problem = Given("only", lambda p, batch: p.module().square().sum(), config=Config(log_step=own))
    engine = alone(problem, train_iters=23, log_step=log_step, device="cpu")
    steps: list[int] = []
    norm = monitor.norm
    monkeypatch.setattr(monitor, "norm", lambda tensors: steps.append(engine.step_count + 1) or norm(tensors))
    engine.callbacks.callbacks += [Monitor()]
    engine.run()
    assert steps == measured


def test_an_upper_is_measured_where_its_last_step_before_a_record_is(monkeypatch):
    """It steps every 4 engine steps and is written every 10: its steps 8, 20, 28, 40 are those that are shown."""
    engine = hierarchy({"up": ["low"]}, low={"unroll_steps": 4})
    engine.config = EngineConfig(train_iters=40, log_step=10, device="cpu")
    measured = []

    class Look(Callback):
        def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Any]) -> None:
            if problem.name == "up" and "hypergradient norm" in metrics:
                measured.append(engine.step_count + 1)

    engine.callbacks.callbacks += [Monitor(), Look()]
    engine.run()
    assert measured == [8, 20, 28, 40]


def test_nothing_is_fetched(monkeypatch):
    def fetches(*callbacks: Callback) -> int:
        engine = hierarchy({"up": ["low"]}, low={"unroll_steps": 3})
        engine.config = EngineConfig(train_iters=20, log_step=2, device="cpu")
        engine.callbacks.callbacks += callbacks
        count = 0

        def counted(name: str) -> Any:
            original = getattr(torch.Tensor, name)

            def fetch(tensor: torch.Tensor, *args: Any) -> Any:
                nonlocal count
                count += 1
                return original(tensor, *args)

            return fetch

        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, counted(name))
            engine.run()
        return count

    assert fetches(Monitor()) == fetches() > 0
