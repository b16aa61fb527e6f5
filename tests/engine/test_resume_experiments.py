"""Every shipped experiment, stopped anywhere and gone on with, ends with the bits of a run that was never stopped."""

from __future__ import annotations

import functools
import os
import random
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multilevel import Engine
from multilevel.configs.loader import load, shipped
from multilevel.engine.build import build
from multilevel.engine.callbacks import Callback
from multilevel.engine.interruption import Interrupted

from .states import differences

STEPS = 26
SAVING = ["engine.checkpoint_every=1", "engine.keep=100"]
EVERYWHERE = [f"engine.train_iters={STEPS}", "engine.valid_step=10", "engine.device=cpu", "engine.log_step=10"]
SHORT = {
    "actor-critic-cartpole": [
        "engine.options.env.count=4",
        "engine.options.test.count=3",
        "problems.critic.options.steps=8",
        "problems.critic.config.unroll_steps=3",
        "problems.critic.config.gradient_accumulation=2",
    ],
    "architecture-digits": [
        "engine.options.random_choices=1",
        "problems.architecture.module.layers=2",
        "problems.network.module.layers=2",
        "problems.network.config.warmup_steps=4",
        "problems.network.config.unroll_steps=3",
        "problems.network.config.gradient_accumulation=2",
        "problems.architecture.data.batch_size=30",
    ],
    "l2-breast-cancer": [
        "problems.classifier.config.unroll_steps=4",
        "problems.classifier.config.gradient_accumulation=2",
    ],
    "reweight-digits": [
        "problems.classifier.config.unroll_steps=3",
        "problems.classifier.config.warmup_steps=4",
        "problems.reweight.config.gradient_accumulation=2",
        "problems.reweight.data.batch_size=30",
    ],
    "select-digits": [
        "problems.classifier.config.unroll_steps=3",
        "problems.classifier.config.warmup_steps=4",
        "problems.selection.config.gradient_accumulation=2",
        "problems.selection.data.batch_size=30",
    ],
}
PLACES = ("inner loop", "epoch", "accumulation")
ONE_BATCH_AN_EPOCH = {"l2-breast-cancer", "actor-critic-cartpole"}
"""They have all their samples in one batch, or no loader at all."""


class Stop(Callback):
    """Ends a run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, engine: Engine) -> None:
        engine.should_stop = engine.step_count == self.step


class Terminate(Callback):
    """The process gets SIGTERM during a level step of a problem."""

    def __init__(self, problem: str, step: int) -> None:
        self.problem, self.step = problem, step

    def on_level_step(self, engine: Engine, problem: Any, metrics: Any) -> None:
        if (problem.name, engine.step_count) == (self.problem, self.step):
            os.kill(os.getpid(), signal.SIGTERM)


class Places(Callback):
    """Notes after which engine steps the run is in the middle of something."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {place: [] for place in PLACES}

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count < STEPS:
            for place in PLACES:
                if any(self._inside(place, problem) for problem in engine.problems.values()):
                    self.found[place].append(engine.step_count)

    def _inside(self, place: str, problem: Any) -> bool:
        level, config = problem.level, problem.config
        if place == "inner loop":
            return (level.update.steps - config.warmup_steps) % config.unroll_steps != 0
        if place == "accumulation":
            return level.update.batches > 0
        loader = problem.train_data_loader
        return loader is not None and 0 < level.batches.position < len(loader)


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Args:
        state: Of the engine.
        report: Its metrics.
        places: See :class:`Places`.
    """

    state: Mapping[str, Any]
    report: Mapping[str, Any]
    places: Mapping[str, list[int]]


def built(name: str, folder: Path | None, *settings: str, callbacks: tuple[Callback, ...] = ()) -> Engine:
    torch.set_default_dtype(torch.float32)
    loaded = load(name, [*EVERYWHERE, *SHORT[name], *settings])
    return build(loaded, callbacks=callbacks, run_dir=folder)


def reported(engine: Engine) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return engine.report(Path(folder))


def lasting(state: dict[str, Any]) -> dict[str, Any]:
    """A copy without times and settings, which are not the same, and without callbacks that remember nothing."""
    state = {**state, "callbacks": {name: kept for name, kept in state["callbacks"].items() if kept}}
    return torch.utils._pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf,
        {key: part for key, part in state.items() if key not in ("times", "built_from")},
    )


def elsewhere(seed: int) -> None:
    """Random numbers as another process might have them."""
    torch.manual_seed(123 + seed)
    np.random.seed(45 + seed)
    random.seed(6 + seed)


def resumed(name: str, folder: Path, step: int, *settings: str) -> Engine:
    """A new engine, gone on with from the checkpoint of a step; those of later steps are lost."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem.rpartition("-")[2]) > step:
            path.unlink()
    elsewhere(1)
    engine = built(name, folder, *settings)
    elsewhere(2)
    assert engine.resume() == step == engine.step_count
    engine.should_stop = False  # the checkpoint is that of a run that was to end there
    return engine


@functools.cache
def uninterrupted(name: str) -> Outcome:
    places = Places()
    engine = built(name, None, callbacks=(places,))
    engine.run()
    return Outcome(lasting(engine.state_dict()), reported(engine), places.found)


def chosen(name: str) -> list[int]:
    """A random step in the middle of each thing that this experiment has."""
    draw = random.Random(f"{name} 5")
    places = uninterrupted(name).places
    return sorted(draw.choice(places[place] or range(1, STEPS)) for place in PLACES)


def ends_alike(engine: Engine, name: str) -> None:
    engine.run()
    assert differences(lasting(engine.state_dict()), uninterrupted(name).state) == []


def test_all_that_is_shipped_is_here():
    assert set(SHORT) == set(shipped())


@pytest.mark.parametrize("name", SHORT)
def test_there_is_something_to_be_in_the_middle_of(name):
    empty = {place for place, steps in uninterrupted(name).places.items() if not steps}
    assert empty == ({"epoch"} if name in ONE_BATCH_AN_EPOCH else set())


@pytest.mark.parametrize("name", SHORT)
def test_stopped_anywhere_it_ends_with_the_same_bits(name, tmp_path):
    steps = chosen(name)
    built(name, tmp_path, *SAVING, callbacks=(Stop(steps[-1]),)).run()
    for step in sorted({*steps}, reverse=True):
        engine = resumed(name, tmp_path, step)
        ends_alike(engine, name)
        assert differences(reported(engine), uninterrupted(name).report) == []


@pytest.mark.parametrize("name", SHORT)
def test_stopped_again_and_again_it_ends_with_the_same_bits(name, tmp_path):
    steps = chosen(name)  # perhaps by a whole run, which draws random numbers: before this one is seeded
    engine = built(name, tmp_path, *SAVING)
    for step in sorted({*steps}):
        engine.callbacks.callbacks.append(Stop(step))
        engine.run()
        engine = resumed(name, tmp_path, step, *SAVING)
    ends_alike(engine, name)


@pytest.mark.parametrize("name", SHORT)
def test_interrupted_between_two_levels_it_ends_with_the_same_bits(name, tmp_path):
    leaf = next(p for p in built(name, None).problems.values() if not p.lowers).name
    step = random.Random(f"{name} 7").randrange(1, STEPS)
    with pytest.raises(Interrupted):
        built(name, tmp_path, callbacks=(Terminate(leaf, step),)).run()
    ends_alike(resumed(name, tmp_path, step), name)
