"""The environment that problems act in: any object; those of gymnasium are seeded, watched and closed."""

from __future__ import annotations

import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import CheckpointWarning
from .environment_state import read, write
from .environment_values import SPACES, Unwritable, is_space, own_state

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
        self._warned = False

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
        """Where the environment is, as data; of an object that was left alone, its own ``state_dict``, if it has one.

        Warns, once, where some of it is no data.
        """
        if own_state(self.env) is None:
            return {}
        try:
            return {"env": write(self.env)[0]}
        except Unwritable as error:
            self._warn({error.path: error.kind}, "finds it as it is built")
            return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            CheckpointError: It is that of another environment.
        """
        if "env" in state:
            read(state["env"], self.env)

    def _warn(self, missing: Mapping[str, str], consequence: str) -> None:
        if not self._warned:
            what = ", ".join(f"{path} is a {kind}" for path, kind in missing.items())
            warnings.warn(
                f"checkpoints cannot hold the environment ({what}): a run that goes on from one {consequence}. To keep "
                "it, give the environment, or a wrapper around it, the methods state_dict() and load_state_dict(state)",
                CheckpointWarning,
                stacklevel=3,
            )
        self._warned = True

    def close(self) -> None:
        """Called when a run ends, also by an exception."""


class GymnasiumEnvironment(Environment):
    """A gymnasium environment, single or vector; ``env`` is it, with a wrapper that counts episodes around.

    Args:
        env: The environment.
        seed: Seeds it and its spaces; ``None`` leaves them alone.
    """

    def __init__(self, env: Any, seed: int | None) -> None:
        self._recorder = _recorder(env)
        super().__init__(env if self._recorder is not None else _recording(env))
        self._recorder = self._recorder or self.env
        self._latest: dict[str, Tensor] = {}
        self._players: set[str] = set()
        self._seed = seed
        if seed is not None:
            self.env.reset(seed=seed)
            for name in SPACES:
                space: Any = getattr(self.env, name, None)
                if is_space(space):
                    space.seed(seed)

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

    def state_dict(self) -> dict[str, Any]:
        state, missing = write(self.env)
        if missing:
            self._warn(missing, "starts fresh episodes, seeded by the run's seed and the episodes so far")
        return {
            "env": state,
            "restarts": bool(missing),
            "latest": dict(self._latest),
            "players": sorted(self._players),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        read(state["env"], self.env)
        self._latest, self._players = dict(state["latest"]), set(state["players"])
        if state["restarts"]:
            # Not the seed of the start, which would play its episodes again.
            self.env.reset(seed=zlib.crc32(f"{self._seed} {self.episodes}".encode()))
        _start_clock(self._recorder)

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


def _start_clock(recorder: Any) -> None:
    """Let the time of the running episodes count from now."""
    for name in ("episode_start_time", "episode_start_times"):
        if hasattr(recorder, name):
            setattr(recorder, name, 0 * getattr(recorder, name) + time.perf_counter())


def _wrappers(env: Any) -> Any:
    vector = isinstance(env, sys.modules["gymnasium"].vector.VectorEnv)
    return import_module("gymnasium.wrappers.vector" if vector else "gymnasium.wrappers")
