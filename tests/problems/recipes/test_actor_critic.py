"""What the critic remembers between its steps, and gives to checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from multilevel import Config, Engine, EngineConfig
from multilevel.problems.recipes.actor_critic import Actor, Critic
from multilevel.problems.recipes.rollouts import Player, environments

CPU = torch.device("cpu")


SCORE = Config(estimator="score")


def hierarchy(unroll_steps: int = 3) -> Engine:
    actor, critic = nn.Linear(4, 2), nn.Linear(4, 1)
    problems = [
        Actor("actor", module=actor, optimizer=torch.optim.SGD(actor.parameters(), lr=0.01), config=SCORE),
        Critic(
            "critic",
            module=critic,
            optimizer=torch.optim.SGD(critic.parameters(), lr=0.01),
            config=Config(type="identity", unroll_steps=unroll_steps),
            steps=6,
        ),
    ]
    env = environments("CartPole-v1", 2)
    return Engine(problems, edges=[("actor", "critic")], env=env, config=EngineConfig(train_iters=20, seed=0))


class Unmoved:
    """Only says what kind of environment it is: nothing may be asked of it."""

    metadata: Any = environments("CartPole-v1", 1).metadata


def test_a_player_with_a_state_leaves_the_environment_where_it_is():
    state = {"states": torch.ones(2, 4), "ended": torch.tensor([True, False])}
    again = Player(Unmoved(), CPU, state).state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_critic_goes_on_with_its_rollout(steps):
    old, new = hierarchy(), hierarchy()
    for _ in range(steps):
        old.step()
    new.load_state_dict(old.state_dict())
    assert new["critic"].experience == old["critic"].experience
    found = []
    for engine in (old, new):
        torch.manual_seed(1)
        found.append((*engine["critic"].get_batch(), *engine["critic"].rollout))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_batch_is_the_same_until_the_next_inner_loop():
    engine = hierarchy(unroll_steps=3)
    seen = []
    for _ in range(7):
        engine.step()
        seen.append(engine["critic"].level.moment.batch[0])
    assert [seen[i] is seen[0] for i in range(3)] == [True] * 3
    assert seen[3] is seen[5] is not seen[0]
    assert seen[6] is not seen[3]


def test_a_rollout_that_the_actor_asked_for_first_is_what_the_critic_learns_from():
    critic = hierarchy()["critic"]
    rollout = critic.rollout
    states, returns = critic.get_batch()
    assert torch.equal(states, rollout.states[rollout.real])
    assert returns.shape == states.shape[:1]
