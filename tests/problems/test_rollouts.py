"""Rollouts of vector environments, and the advantages of their steps."""

from __future__ import annotations

import gymnasium
import pytest
import torch
from torch.distributions import Categorical

from multilevel.hypergrad.errors import ConfigError
from multilevel.problems.recipes.rollouts import Player, Rollout, advantages, environments

CPU = torch.device("cpu")


def left(states):
    return Categorical(logits=torch.tensor([50.0, -50.0]).expand(len(states), 2))


def test_a_rollout_goes_on_where_the_last_one_ended():
    player = Player(environments("CartPole-v1", 3), CPU)
    first, second = player.play(left, 4), player.play(left, 20)
    assert first.states.shape == (4, 3, 4)
    assert first.actions.shape == first.rewards.shape == first.real.shape == (4, 3)
    assert torch.equal(first.next_states[:-1], first.states[1:])
    assert torch.equal(first.next_states[-1], second.states[0])


def test_the_step_that_starts_an_episode_over_is_no_step():
    rollout = Player(environments("CartPole-v1", 3), CPU).play(left, 24)
    assert rollout.ended.any()
    assert torch.equal(~rollout.real[1:], rollout.ended[:-1])
    assert torch.equal(rollout.rewards, rollout.real.to(rollout.rewards))
    assert (rollout.states[rollout.ended].abs()[:, 2] < 0.21).all()  # before the step in which the pole fell
    assert (rollout.next_states[rollout.terminated].abs()[:, 2] > 0.2).all()  # the true last state, not a new start


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_advantages_are_the_weighted_sum_of_surprises(trace):
    steps, discount = 6, 0.9
    states = torch.randn(steps + 1, 2, 1)
    ended = torch.zeros(steps, 2, dtype=torch.bool)
    ended[2, 0] = ended[3, 1] = True
    terminated = ended.clone()
    terminated[3, 1] = False  # only out of time: what would have come still counts
    rewards = torch.randn(steps, 2)
    real = torch.ones_like(ended)
    rollout = Rollout(states[:-1], torch.zeros(steps, 2), rewards, states[1:], terminated, ended, real)

    def values(s):
        return s.squeeze(-1).sin()

    v = values(states)
    for env in range(2):
        for start in range(steps):
            expected, weight = 0.0, 1.0
            for t in range(start, steps):
                beyond = 0.0 if terminated[t, env] else discount * v[t + 1, env]
                expected += weight * (rewards[t, env] + beyond - v[t, env])
                weight *= discount * trace
                if ended[t, env]:
                    break
            got = advantages(rollout, values, discount=discount, trace=trace)[start, env]
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "env",
    [
        None,
        gymnasium.make("CartPole-v1"),
        gymnasium.make_vec(
            "CartPole-v1",
            num_envs=2,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        ),
    ],
)
def test_other_environments_are_refused(env):
    with pytest.raises(ConfigError, match="make_vec"):
        Player(env, CPU)


def test_unknown_environments_are_named():
    with pytest.raises(ConfigError, match="environment 'CartPool-v1'"):
        environments("CartPool-v1", 2)
