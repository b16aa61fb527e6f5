"""The three experiments that learn through sampled choices, shortened: they run, improve, and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multilevel.configs.loader import load
from multilevel.engine.build import build
from multilevel.engine.environment import environment
from multilevel.hypergrad.errors import ConfigError


@pytest.fixture(autouse=True)
def _as_users_run_it() -> None:
    torch.set_default_dtype(torch.float32)


def finished(experiment: str, *overrides: str) -> Any:
    engine = build(load(experiment, ["engine.valid_step=0", *overrides]))
    engine.run()
    return engine


def test_actor_critic(tmp_path: Path):
    engine = finished("actor-critic-cartpole", "engine.train_iters=200", "engine.valid_step=100")
    report = engine.report(tmp_path)
    assert report["return (greedy)"] > 100  # 9 to 25 without training
    assert report["worst return (greedy)"] <= report["return (greedy)"]
    assert 38_000 < report["environment steps"] <= 40 * 32 * 32
    assert engine.last_metrics["critic"]["episode return"] > 40
    assert len(engine.curve.steps) == 2
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000


def test_actor_critic_is_reproducible():
    runs = [finished("actor-critic-cartpole", "engine.train_iters=20") for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*(run["actor"].parameters for run in runs), strict=True))


def test_entropy_is_part_of_the_reward():
    entropies = [
        finished("actor-critic-cartpole", "engine.train_iters=100", f"problems.actor.options={{entropy: {weight}}}")
        .last_metrics["actor"]["entropy"]
        .item()
        for weight in (0.0, 10.0)
    ]
    assert entropies[1] > max(0.69, entropies[0])  # log 2 is the most


def test_actor_critic_needs_vector_environments():
    options = "engine.options.test={class: multilevel.problems.recipes.extras.extra, module: math, purpose: nothing}"
    with pytest.raises(ConfigError, match="test must be a vector environment"):
        build(load("actor-critic-cartpole", [options]))


def test_data_selection(tmp_path: Path):
    engine = finished("select-digits", "engine.train_iters=400")
    report = engine.report(tmp_path)
    assert report["accuracy (selected)"] > 0.9
    assert report["probability kept (right label)"] > report["probability kept (wrong label)"] + 0.5
    assert set(report) >= {"accuracy (Meta-Weight-Net)", "accuracy (plain)"}


def test_architecture_choice(tmp_path: Path):
    engine = finished("architecture-digits", "engine.train_iters=70", "engine.options.random_choices=2")
    assert engine.last_metrics["architecture"]["entropy"] < 1.6  # log 5 is the most
    report = engine.report(tmp_path)
    assert (tmp_path / "architecture.txt").read_text().split("\n")[:3] == list(engine.found)
    assert report["accuracy (random, worst)"] <= report["accuracy (random, mean)"] <= report["accuracy (random, best)"]
    assert report["accuracy (found)"] > 0.5


def test_nothing_is_wrapped_without_gymnasium(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(__import__("sys").modules, "gymnasium", raising=False)
    thing = object()
    assert environment(thing, seed=0).env is thing
