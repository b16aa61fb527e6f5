"""Environments in checkpoints: one that goes on from a state does what the one that it was taken of does."""

from __future__ import annotations

import multiprocessing
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import NormalizeObservation

from multilevel.engine.environment import Environment, environment
from multilevel.hypergrad.errors import CheckpointError, CheckpointWarning

from .playing import as_data, through_a_file
from .states import differences

Make = Callable[[], Any]

SINGLE = ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
SINGLE += ["Taxi-v4", "Blackjack-v1", "CliffWalking-v1"]


def newest(name: str) -> str:
    """The version of an environment that this gymnasium has."""
    stem = name.rpartition("-")[0]
    return max(known for known in gymnasium.registry if known.startswith(f"{stem}-v"))


def single(name: str) -> Make:
    return lambda: gymnasium.make(newest(name))


def vector(name: str, **options: Any) -> Make:
    return lambda: gymnasium.make_vec(newest(name), num_envs=3, **options)


def several(name: str, **options: Any) -> Make:
    return vector(name, vectorization_mode="sync", **options)


def same_step() -> Any:
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    return gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync", vector_kwargs=mode)


def wrapped() -> Any:
    return NormalizeObservation(gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1"), 12))


def stacked() -> Any:
    return gymnasium.wrappers.FrameStackObservation(gymnasium.make("Pendulum-v1"), 3)


def recorded() -> Any:
    return gymnasium.wrappers.vector.NormalizeReward(
        gymnasium.wrappers.vector.RecordEpisodeStatistics(gymnasium.make_vec("CartPole-v1", num_envs=3))
    )


ENVIRONMENTS = {
    **{name: single(name) for name in SINGLE},
    **{f"{name} vector": vector(name) for name in ("CartPole-v1", "Pendulum-v1")},
    **{f"{name} several": several(name) for name in ("CartPole-v1", "FrozenLake-v1", "Blackjack-v1")},
    **{make.__name__: make for make in (same_step, wrapped, stacked, recorded)},
}


def play(env: Any, steps: int) -> list[Any]:
    """Sampled actions, and all that they bring; single environments are reset where an episode ends."""
    seen: list[Any] = []
    for _ in range(steps):
        action = env.action_space.sample()
        observed, reward, terminated, truncated, info = env.step(action)
        seen.append((action, observed, reward, terminated, truncated, timeless(info)))
        if not hasattr(env, "num_envs") and (terminated or truncated):
            seen.append(env.reset())
    return seen


def timeless(info: dict[str, Any]) -> dict[str, Any]:
    if "episode" in info:
        return {**info, "episode": {key: value for key, value in info["episode"].items() if key != "t"}}
    return info


@pytest.mark.parametrize("make", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_new_environment_goes_on_as_the_old_one(make, seed, tmp_path):
    before = random.Random(seed).randrange(1, 60)
    old = environment(make(), seed=seed)
    if seed == 1:
        old.env.reset(seed=5)
    play(old.env, before)
    state = through_a_file(old.state_dict(), tmp_path)
    expected = play(old.env, 250)
    new = environment(make(), seed=seed + 7)
    new.load_state_dict(state)
    assert differences(as_data(play(new.env, 250)), as_data(expected)) == []
    assert differences(new.state_dict(), old.state_dict()) == []
    assert new.episodes == old.episodes


def test_loading_takes_back_what_was_played_since():
    env = environment(gymnasium.make_vec("CartPole-v1", num_envs=3), seed=0)
    play(env.env, 20)
    state = env.state_dict()
    expected = play(env.env, 40)
    for _ in range(2):  # the state is not worn out by it
        env.load_state_dict(state)
        assert differences(as_data(play(env.env, 40)), as_data(expected)) == []


def test_an_environment_that_is_closed_can_go_on():
    old, new = (environment(gymnasium.make_vec("CartPole-v1", num_envs=2), seed=s) for s in (0, 1))
    play(old.env, 9)
    old.close()
    new.load_state_dict(old.state_dict())
    assert not new.env.env.closed
    assert differences(as_data(play(new.env, 30)), as_data(play(old.env, 30))) == []


def test_the_latest_metrics_and_who_played_are_kept():
    old, new = (environment(gymnasium.make_vec("CartPole-v1", num_envs=3), seed=0) for _ in range(2))
    play(old.env, 60)
    metrics = old.metrics("critic", since=0)
    new.load_state_dict(old.state_dict())
    assert metrics
    assert new.metrics("critic", since=old.episodes) == metrics
    assert new.metrics("actor", since=old.episodes) == {}


def test_the_time_of_an_episode_counts_from_where_it_was_gone_on_with():
    env = environment(gymnasium.make("CartPole-v1"), seed=None)
    env.env.reset(seed=0)
    new = environment(gymnasium.make("CartPole-v1"), seed=None)
    new.load_state_dict(env.state_dict())
    while not (new.env.step(0)[2]):
        pass
    assert 0 <= new.env.time_queue[0] < 60


class Handle:
    """Has a state, which is not in its attributes."""

    __slots__ = ()

    def __getstate__(self) -> Any:
        return b"position"


class Simulator(gymnasium.Env):
    """Its position is in a handle that is no data."""

    observation_space = spaces.Box(-9, 9, (1,))

    def __init__(self, handle: Any = None) -> None:
        self.action_space = spaces.Discrete(2)
        self.handle = handle or Handle()
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position = self.np_random.normal()
        return np.array([self.position]), {}

    def step(self, action: Any) -> Any:
        self.position += self.np_random.normal()
        return np.array([self.position]), 1.0, self.np_random.random() < 0.1, False, {}


class Answers(gymnasium.Wrapper):
    """Answers for what it wraps."""

    def state_dict(self) -> Any:
        return {"position": np.float64(self.unwrapped.position)}

    def load_state_dict(self, state: Any) -> None:
        self.unwrapped.position = state["position"]


@pytest.mark.parametrize("handle", [Handle(), iter([0]), threading.Lock(), multiprocessing.Pipe()[0]])
def test_a_handle_is_named_and_fresh_episodes_begin(handle):
    old = environment(Simulator(handle), seed=0)
    play(old.env, 40)
    episodes = old.episodes
    with pytest.warns(CheckpointWarning, match=r"Simulator\.handle is a \w+\).*fresh episodes.*state_dict\(\)"):
        state = old.state_dict()
    assert old.state_dict().keys() == state.keys()  # it warns once
    played = []
    for seed in (1, 2):
        new = environment(Simulator(handle), seed=0)
        play(new.env, seed)
        new.load_state_dict(state)
        assert new.episodes == episodes > 0
        assert new.env.episode_lengths == 0
        played.append(as_data(play(new.env, 30)))
    assert differences(*played) == []
    start = environment(Simulator(), seed=0)
    start.env.reset(seed=0)
    assert differences(played[0], as_data(play(start.env, 30)))


def test_worker_processes_begin_fresh_episodes():
    env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="async")
    old = environment(env, seed=0)
    try:
        play(old.env, 30)
        with pytest.warns(CheckpointWarning, match=r"AsyncVectorEnv\.parent_pipes\[0\] is a Connection"):
            state = old.state_dict()
        episodes, places = old.episodes, []
        for _ in range(2):
            old.load_state_dict(state)
            assert old.episodes == episodes
            places.append(as_data(play(old.env, 10)))
        assert differences(*places) == []
    finally:
        old.close()


def test_a_wrapper_with_a_state_of_its_own_answers_for_what_is_inside(recwarn):
    old, new = (environment(Answers(Simulator()), seed=seed) for seed in (0, 1))
    play(old.env, 40)
    new.load_state_dict(old.state_dict())
    assert not recwarn.list
    assert differences(as_data(play(new.env, 40)), as_data(play(old.env, 40))) == []


@pytest.mark.parametrize("make", [vector("CartPole-v1"), several("CartPole-v1"), single("Blackjack-v1")])
def test_the_seed_decides_all_that_an_environment_begins_with(make):
    first, second = (environment(make(), seed=3).state_dict() for _ in range(2))
    assert differences(first, second) == []


def test_another_environment_is_refused():
    state = environment(gymnasium.make("CartPole-v1"), seed=0).state_dict()
    with pytest.raises(CheckpointError, match=r"state of a .*CartPoleEnv where there is a .*PendulumEnv"):
        environment(gymnasium.make("Pendulum-v1"), seed=0).load_state_dict(state)


class Counted:
    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> Any:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def test_any_other_object_is_asked_for_its_state(tmp_path):
    old, new = (environment(Counted(), seed=0) for _ in range(2))
    assert type(old) is Environment
    old.env.count = 3
    new.load_state_dict(through_a_file(old.state_dict(), tmp_path))
    assert new.env.count == 3


@pytest.mark.parametrize("env", [None, 3, object()])
def test_one_that_cannot_be_asked_is_left_alone(env):
    taken = environment(env, seed=0)
    assert taken.state_dict() == {}
    taken.load_state_dict({})


def test_a_state_that_is_no_data_is_left_out_with_a_warning():
    class Odd(Counted):
        def state_dict(self) -> Any:
            return {"count": (i for i in ())}

    taken = environment(Odd(), seed=0)
    with pytest.warns(CheckpointWarning, match="generator"):
        assert taken.state_dict() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken.state_dict()
