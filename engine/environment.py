"""The environment that problems act in: any object; those of gymnasium are seeded, watched and closed."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

RECENT = 100
"""Episodes that the mean return is taken over."""


class Environment:
    """An object that is left alone.

    Args:
        env: The object; ``None`` for none.

    Attributes:
        env: What problems find as ``self.env``.
    """

    def __init__(self, env: Any) -> None:
        self.env = env

    @property
    def episodes(self) -> int:
        """Episodes that ended so far, where that is known."""
        return 0

    def metrics(self, problem: str, since: int) -> dict[str, Tensor]:
        """Return and length of the latest episodes, for the problems that play them.

        Args:
            problem: Who took a level step.
            since: ``episodes`` before that step.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Where the environment is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""

    def close(self) -> None:
        """Called when a run ends, also by an exception."""


class GymnasiumEnvironment(Environment):
    """A gymnasium environment, single or vector; ``env`` is it, with a wrapper that counts episodes around.

    Args:
        env: The environment.
        seed: Seeds it and its action space; ``None`` leaves them alone.
    """

    def __init__(self, env: Any, seed: int | None) -> None:
        self._recorder = _recorder(env)
        super().__init__(env if self._recorder is not None else _recording(env))
        self._recorder = self._recorder or self.env
        self._latest: dict[str, Tensor] = {}
        self._players: set[str] = set()
        if seed is not None:
            self.env.reset(seed=seed)
            self.env.action_space.seed(seed)

    @property
    def episodes(self) -> int:
        return int(self._recorder.episode_count)

    def metrics(self, problem: str, since: int) -> dict[str, Tensor]:
        if self.episodes > since:
            self._players.add(problem)
            self._latest = {
                "episode return": torch.tensor([float(r) for r in self._recorder.return_queue]).mean(),
                "episode length": torch.tensor([float(n) for n in self._recorder.length_queue]).mean(),
                "episodes": torch.tensor(self.episodes),
            }
        return self._latest if problem in self._players else {}

    def close(self) -> None:
        self.env.close()


def environment(env: Any, seed: int | None) -> Environment:
    """Take up whatever an engine was given as ``env``."""
    gymnasium = sys.modules.get("gymnasium")  # an object of gymnasium's cannot be there unless it was imported
    if gymnasium is None or not isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        return Environment(env)
    return GymnasiumEnvironment(env, seed)


def _recording(env: Any) -> Any:
    return _wrappers(env).RecordEpisodeStatistics(env, buffer_length=RECENT)


def _recorder(env: Any) -> Any:
    """The wrapper that counts episodes, where the environment came with one."""
    kind = _wrappers(env).RecordEpisodeStatistics
    while env is not None and not isinstance(env, kind):
        env = vars(env).get("env")
    return env


def _wrappers(env: Any) -> Any:
    vector = isinstance(env, sys.modules["gymnasium"].vector.VectorEnv)
    return import_module("gymnasium.wrappers.vector" if vector else "gymnasium.wrappers")
