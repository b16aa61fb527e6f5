"""Pieces of episodes, played in a vector environment of gymnasium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...hypergrad.errors import ConfigError
from .extras import extra

Values = Callable[[Tensor], Tensor]
"""The estimated return from each state on."""


class Rollout(NamedTuple):
    """What happened in so many steps of so many environments; every tensor is of shape (steps, environments, ...).

    Attributes:
        states: Before each step.
        actions: What was done.
        rewards: What it brought.
        next_states: After each step; where an episode ended there, its true last state.
        terminated: Whether the episode came to its natural end, beyond which nothing can be gained.
        ended: Whether it came to any end, that of its time too.
        real: Whether this was a step at all: the environment spends one on starting over.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    terminated: Tensor
    ended: Tensor
    real: Tensor


class Player:
    """Plays on in an environment, from where the last rollout left it.

    Args:
        env: A vector environment of gymnasium that starts episodes over by itself, in the step after their end.
        device: Where the rollouts are wanted.
        state: What :meth:`state_dict` returned: the environment is at that place already. It is reset without one.

    Raises:
        ConfigError: It is something else.
    """

    def __init__(self, env: Any, device: torch.device, state: Mapping[str, Tensor] | None = None) -> None:
        mode = getattr(getattr(env, "metadata", {}).get("autoreset_mode"), "name", None)
        if mode != "NEXT_STEP":
            raise ConfigError(
                "rollouts: need Engine(env=gymnasium.make_vec(...)) with autoreset mode NEXT_STEP (gymnasium's "
                f"default), got {env}" + (f" with autoreset mode {mode}" if mode else "")
            )
        self._env = env
        self._device = device
        if state is not None:
            self._states, self._ended = state["states"].to(device), state["ended"].to(device)
            return
        self._states = self._tensor(env.reset()[0])
        self._ended = torch.zeros(env.num_envs, dtype=torch.bool, device=device)

    def state_dict(self) -> dict[str, Tensor]:
        """What was last seen of the environment."""
        return {"states": self._states, "ended": self._ended}

    def play(self, policy: Callable[[Tensor], Distribution], steps: int) -> Rollout:
        """Take steps in every environment; no gradient is kept."""
        with torch.no_grad():
            return Rollout(*map(torch.stack, zip(*(self._step(policy) for _ in range(steps)), strict=True)))

    def _step(self, policy: Callable[[Tensor], Distribution]) -> Rollout:
        states, real = self._states, ~self._ended
        actions = policy(states).sample()
        observed, rewards, terminated, truncated, _ = self._env.step(actions.cpu().numpy())
        self._states = self._tensor(observed)
        self._ended = torch.as_tensor(terminated | truncated, device=self._device)
        end = torch.as_tensor(terminated, device=self._device)
        return Rollout(states, actions, self._tensor(rewards), self._states, end, self._ended, real)

    def _tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(array, dtype=torch.get_default_dtype(), device=self._device)


def advantages(rollout: Rollout, values: Values, *, discount: float, trace: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv 1506.02438), of shape (steps, environments).

    Args:
        rollout: What happened.
        values: The critic.
        discount: What a reward a step later is worth.
        trace: lambda, how far to trust what happened over what the critic expects: 1 for the whole return.
    """
    with torch.no_grad():
        after = discount * values(rollout.next_states) * ~rollout.terminated
        surprises = rollout.rewards + after - values(rollout.states)
    decays = discount * trace * ~rollout.ended
    found = torch.empty_like(surprises)
    coming = torch.zeros_like(surprises[0])
    for step in reversed(range(len(surprises))):
        found[step] = coming = surprises[step] + decays[step] * coming
    return found


def environments(name: str, count: int) -> Any:
    """Copies of a gymnasium environment, stepped at once.

    Args:
        name: As it is registered: ``"CartPole-v1"``.
        count: How many.

    Raises:
        ConfigError: There is none of that name, or gymnasium is not installed.
    """
    gymnasium = extra("gymnasium", f"the environment {name}")
    try:
        return gymnasium.make_vec(name, num_envs=count)
    except gymnasium.error.Error as error:
        raise ConfigError(f"environment '{name}': {error}") from error
