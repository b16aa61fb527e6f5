"""``env=`` of the engine: any object is found as ``self.env``; gymnasium's are seeded, watched and closed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from multilevel import Engine, EngineConfig, Problem
from multilevel.engine.environment import environment


class Countdown(gymnasium.Env):
    """Episodes of three steps that bring 1 each; where it starts is random."""

    observation_space = spaces.Box(0, 1, (1,))

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(2)  # an object's own: it holds the generator
        self.closed, self.left = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 3
        return self.np_random.random(1).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}

    def close(self) -> None:
        self.closed += 1


class Walk(Problem):
    """Takes one step in the environment for each batch."""

    def get_batch(self) -> Any:
        if self.count % 3 == 0:
            self.env.reset()
        self.env.step(0)

    def training_step(self, batch: Any) -> Any:
        return self.module.weight.square().sum()


class Rest(Walk):
    def get_batch(self) -> Any:
        return None


def walk(cls: type[Problem] = Walk, name: str = "walk") -> Problem:
    module = nn.Linear(1, 1)
    return cls(name, module=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1))


def engine(env: Any, steps: int = 7, seed: int | None = 0, *problems: Problem) -> Engine:
    edges = [problems] if len(problems) == 2 else None
    return Engine(problems or [walk()], edges=edges, env=env, config=EngineConfig(train_iters=steps, seed=seed))


@pytest.mark.parametrize("env", [None, 3, SimpleNamespace(close=lambda: pytest.fail("not ours to close"))])
def test_any_object_is_left_alone(env):
    run = engine(env, 2, 0, walk(Rest))
    run.run()
    assert run.env is env
    assert run["walk"].env is env
    assert set(run.last_metrics["walk"]) == {"loss"}


def test_episodes_are_among_the_metrics_of_who_plays_them():
    run = engine(Countdown(), 7, 0, walk(), walk(Rest, "rest"))
    run.run()
    metrics = run.last_metrics["walk"]
    assert (metrics["episodes"], metrics["episode return"], metrics["episode length"]) == (2, 3.0, 3.0)
    assert set(run.last_metrics["rest"]) == {"loss"}


def test_before_the_first_episode_ends_there_is_nothing_to_say():
    run = engine(Countdown(), steps=2)
    run.run()
    assert set(run.last_metrics["walk"]) == {"loss"}


@pytest.mark.parametrize(("seeds", "same"), [((1, 1), True), ((1, 2), False)])
def test_the_seed_decides_the_episodes_and_the_random_actions(seeds, same):
    envs = [engine(Countdown(), seed=seed).env for seed in seeds]
    drawn = [(env.reset()[0].item(), *(env.action_space.sample() for _ in range(20))) for env in envs]
    assert (drawn[0] == drawn[1]) == same


def test_it_stays_open_until_the_engine_is_closed():
    env = Countdown()
    with engine(env) as run:
        run.run()
        run.step()  # a run can be gone on with
        assert env.closed == 0
    assert env.closed == 1


def test_it_is_closed_when_the_run_breaks_off():
    class Broken(Rest):
        def training_step(self, batch: Any) -> Any:
            raise RuntimeError("boom")

    env = Countdown()
    with pytest.raises(RuntimeError, match="boom"), engine(env, 3, 0, walk(Broken)) as run:
        run.run()
    assert env.closed == 1


def test_vector_environments_count_the_episodes_of_all():
    class Push(Rest):
        def get_batch(self) -> Any:
            if self.count == 0:
                self.env.reset()
            self.env.step(np.zeros(4, dtype=np.int64))  # always to the left: the pole soon falls

    run = engine(gymnasium.make_vec("CartPole-v1", num_envs=4), 12, 0, walk(Push))
    run.run()
    metrics = run.last_metrics["walk"]
    assert metrics["episodes"] == 4
    assert 8 <= metrics["episode return"] == metrics["episode length"] <= 11


def test_a_recorder_that_is_there_already_is_used():
    env = gymnasium.wrappers.TimeLimit(gymnasium.wrappers.RecordEpisodeStatistics(Countdown()), 2)
    assert environment(env, seed=None).env is env
