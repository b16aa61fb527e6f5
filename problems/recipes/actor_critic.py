"""Actor-critic as a bilevel problem: the critic answers the policy that the actor above it follows.

Below, the critic minimises its error about the returns of the actor's episodes, which depend on the actor. Above, the
actor maximises the return; its choices were made in an environment that cannot be differentiated, so its gradient is
that of the score function (``Config(estimator="score")``), with what the critic did not expect as the reward of each
step. The two read each other by the names ``critic`` and ``actor``.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from ..problem import Problem
from ..to_device import to_device
from .rollouts import Player, Rollout, advantages


class Critic(Problem):
    """The lower: squared error about the returns of the actor's latest rollout.

    Each inner loop begins with a rollout of the actor as it is now.

    Args:
        steps: Of a rollout, in each environment.
        discount: What a reward a step later is worth.
        trace: lambda of the generalised advantages.

    Attributes:
        experience: Steps that the environments took so far.
    """

    def __init__(
        self, name: str, *, steps: int = 32, discount: float = 0.99, trace: float = 0.95, **parts: Any
    ) -> None:
        super().__init__(name, **parts)
        self.steps, self.discount, self.trace = steps, discount, trace
        self.experience = 0
        self._player: Player | None = None
        self._rollout: Rollout | None = None
        self._batch: Any = None

    def forward(self, states: Tensor) -> Tensor:
        """The return expected from each state on."""
        values: Tensor = self.module(states)
        return values.squeeze(-1)

    def on_inner_loop_start(self) -> None:
        self._rollout = self._batch = None

    def get_batch(self) -> Any:
        if self._batch is None:
            rollout = self.rollout
            # Fixed for the whole inner loop: the problem is a regression, not a chase after its own estimates.
            returns = self.advantages + self(rollout.states).detach()
            self._batch = rollout.states[rollout.real], returns[rollout.real]
        return self._batch

    def training_step(self, batch: Any) -> Tensor:
        states, returns = batch
        return F.mse_loss(self(states), returns)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "experience": self.experience,
            "player": self._player.state_dict() if self._player is not None else None,
            "rollout": self._rollout._asdict() if self._rollout is not None else None,
            "batch": self._batch,
        }

    def set_extra_state(self, state: Any) -> None:
        rollout, player = to_device((state["rollout"], state["player"]), self.device)
        self.experience = state["experience"]
        self._player = Player(self.env, self.device, player) if player is not None else None
        self._rollout = Rollout(**rollout) if rollout is not None else None
        self._batch = to_device(state["batch"], self.device)

    @property
    def rollout(self) -> Rollout:
        """The actor's latest."""
        if self._rollout is None:
            self._player = self._player or Player(self.env, self.device)
            self._rollout = self._player.play(self.actor, self.steps)
            self.experience += int(self._rollout.real.sum())
        return self._rollout

    @property
    def advantages(self) -> Tensor:
        """How much better each step of the rollout went than this critic now expects."""
        return advantages(self.rollout, self, discount=self.discount, trace=self.trace)


class Actor(Problem):
    """The upper: each step's advantage, normalised, as the reward for the action taken.

    The advantages are numbers: the gradient of the expected return has no part through the critic, which is only what
    returns are compared with.

    Args:
        entropy: Reward for each nat of entropy of the policy, so that it keeps exploring.
    """

    def __init__(self, name: str, *, entropy: float = 0.0, **parts: Any) -> None:
        super().__init__(name, **parts)
        self.entropy = entropy

    def forward(self, states: Tensor) -> Categorical:
        """The policy: a distribution of actions for each state."""
        return Categorical(logits=self.module(states))

    def get_batch(self) -> Any:
        rollout, better = self.critic.rollout, self.critic.advantages
        better = better[rollout.real]
        better = (better - better.mean()) / (better.std() + 1e-8)
        return rollout.states[rollout.real], rollout.actions[rollout.real], better

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        states, actions, better = batch
        policy = self(states)
        self.sample(policy, value=actions)
        entropy = policy.entropy()
        return {"reward": better + self.entropy * entropy, "entropy": entropy.mean()}
