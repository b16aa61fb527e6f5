"""The engine of the actor-critic recipe: returns of whole episodes, and a report with the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from ...hypergrad.errors import ConfigError
from ...problems.problem import Problem
from ...problems.recipes.actor_critic import Actor, Critic
from ...problems.recipes.extras import extra
from ..callbacks import Callback
from ..engine import Engine
from ..modes import evaluation_mode
from .alone import only
from .curve_picture import Curve, save_curve_picture

PICTURE = "learning_curve.png"
TEST_SEED = 10_000
"""Added to the run's seed: the episodes of the tests start elsewhere than those that are trained on."""


class ActorCriticEngine(Engine):
    """Runs a :class:`Critic` below an :class:`Actor`, in the vector environment ``env``.

    Args:
        test: Environments that nothing is trained in; a test is one episode in each of them.
        engine: The arguments of :class:`Engine`.

    Attributes:
        curve: The mean returns so far.

    Raises:
        ConfigError: There is not exactly one problem of each of the two classes, ``env`` or ``test`` is no vector
            environment, or matplotlib is not installed.
    """

    def __init__(self, *engine: Any, test: Any, **settings: Any) -> None:
        callbacks = [*settings.pop("callbacks", ()), TrainingReturns()]
        super().__init__(*engine, callbacks=callbacks, **settings)
        extra("matplotlib", "the learning curve")  # now rather than after the run
        for name, env in (("env", self.env), ("test", test)):
            if not hasattr(env, "num_envs"):
                raise ConfigError(f"{type(self).__name__}: {name} must be a vector environment of gymnasium, got {env}")
        self.test = test
        self.curve = Curve()
        self._actor, self._critic = only(self, Actor), only(self, Critic)

    def validation(self) -> dict[str, float]:
        """The mean return of the most likely actions, over one episode in each test environment."""
        mean = self._returns(greedy).mean().item()
        self.curve.add(self._critic.experience, mean)
        return {"return (greedy)": mean, "environment steps": self._critic.experience}

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Returns in the test environments, by the most likely and by sampled actions; writes the learning curve."""
        with evaluation_mode([self._actor.module]):
            returns = self._returns(greedy)
            sampled = self._returns(Categorical.sample)
        self.curve.add(self._critic.experience, returns.mean().item())
        save_curve_picture(self.curve, run_dir / PICTURE, episodes=len(returns))
        return {
            "return (greedy)": returns.mean().item(),
            "worst return (greedy)": returns.min().item(),
            "return (sampled)": sampled.mean().item(),
            "environment steps": self._critic.experience,
        }

    def get_extra_state(self) -> dict[str, Any]:
        return asdict(self.curve)

    def set_extra_state(self, state: Any) -> None:
        self.curve = Curve(**state)

    def _returns(self, act: Callable[[Categorical], Tensor]) -> Tensor:
        """Play one episode in each test environment."""
        device = self._actor.device
        observed, _ = self.test.reset(seed=TEST_SEED + (self.config.seed or 0))
        returns = torch.zeros(self.test.num_envs)
        running = torch.ones(self.test.num_envs, dtype=torch.bool)
        while running.any():
            states = torch.as_tensor(observed, dtype=torch.get_default_dtype(), device=device)
            observed, rewards, terminated, truncated, _ = self.test.step(act(self._actor(states)).cpu().numpy())
            returns += torch.as_tensor(rewards, dtype=returns.dtype) * running
            running &= ~torch.as_tensor(terminated | truncated)
        return returns


class TrainingReturns(Callback):
    """Adds what the critic's rollouts bring to the learning curve, as soon as they are played."""

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        if isinstance(engine, ActorCriticEngine) and isinstance(problem, Critic) and "episode return" in metrics:
            engine.curve.add_training(problem.experience, metrics["episode return"])


def greedy(policy: Categorical) -> Tensor:
    """The most likely actions."""
    return policy.probs.argmax(dim=-1)
