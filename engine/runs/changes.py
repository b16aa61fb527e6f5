"""Settings that change when a run is gone on with: they take effect, or they are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...configs.loader import LoadedExperiment, load, loads
from ...configs.schema import Experiment
from ...hypergrad.errors import ConfigError
from ..build import build_twin
from ..checkpoints.run_state import training_states
from .differences import Difference, differences, shown
from .folder import RunFolder
from .retuning import retune
from .settings import settings

if TYPE_CHECKING:
    from ..engine import Engine

FIXED = re.compile(r"engine\.seed|problems\.\w+\.(module(\..+)?|(optimizer|scheduler)\.class)")
"""Settings whose effect is in the checkpoint, and comes back with it."""
TUNED = r"problems\.{}\.(class|options|optimizer|scheduler)(\..+)?"
"""Settings that the options of an optimizer or a scheduler may come from."""


def refuse_fixed(there: Experiment, here: Experiment, folder: RunFolder) -> list[Difference]:
    """What differs between the settings of a checkpoint and those that it is to go on with.

    Args:
        there: Those of the checkpoint.
        here: Those from here on.
        folder: The folder of the run.

    Raises:
        ConfigError: Some could not take effect; each is shown.
    """
    found = differences(settings(there), settings(here))
    new = here.problems.keys() ^ there.problems.keys()  # loading the state has words for these
    fixed = [d for d in found if FIXED.fullmatch(d.key) and d.key.split(".")[1] not in new]
    if fixed:
        raise ConfigError(
            "\n  ".join([f"{folder.path}: its checkpoint is that of a run with other settings:", *map(str, fixed)])
            + "\nwhat came of these is in the checkpoint, and comes back with it: leave them as they were, or start "
            f"another run: multilevel run {folder.config} [KEY=VALUE...]"
        )
    return found


class Changes:
    """What changes when the run of a folder goes on.

    Args:
        loaded: The settings from here on.
        folder: The folder.
        allow: Packages that the file may import from.

    Attributes:
        found: The settings that are not what they were when the checkpoint was written, once that was looked at.
    """

    def __init__(self, loaded: LoadedExperiment, folder: RunFolder, allow: Iterable[str]) -> None:
        self._loaded = loaded
        self._folder = folder
        self._allow = tuple(allow)
        self.found: list[Difference] = []

    def lines(self) -> list[str]:
        """Each of them in words, but for the length of the run."""
        told = [d for d in self.found if d.key != "engine.train_iters"]
        return [f"{d.key}: {shown(d.there)} so far, {shown(d.here)} from here on" for d in told]

    def bring_into(self, state: dict[str, Any], engine: Engine) -> None:
        """Let a state that is about to be loaded have what the settings change.

        Args:
            state: What ``run_state`` returned then; changed in place.
            engine: What is to load it.

        Raises:
            ConfigError: A setting has changed that could not take effect.
        """
        # The folder's config.yaml may be ahead of its checkpoint: of a run that changed, and was killed soon after.
        text = state.get("built_from")
        then = loads(text, self._folder.config) if text is not None else load(self._folder.config)
        self.found = refuse_fixed(then.experiment, self._loaded.experiment, self._folder)
        for name in engine.problems.keys() & then.experiment.problems.keys() & state["problems"].keys():
            keys = [d.key for d in self.found if re.fullmatch(TUNED.format(name), d.key)]
            if keys:
                self._retune(name, keys, then, engine, state)

    def _retune(
        self, name: str, keys: list[str], then: LoadedExperiment, engine: Engine, state: dict[str, Any]
    ) -> None:
        problem = engine.problems[name]
        builds = [partial(build_twin, loaded, problem, self._allow) for loaded in (then, self._loaded)]
        taken = [retune(training, *builds) for training in training_states(state, name)]
        idle = [key for key in keys if key.startswith(f"problems.{name}.optimizer.")]
        if idle and problem.scheduler is not None and not any(taken):
            raise ConfigError(
                f"{self._folder.path}: {', '.join(idle)}: changes nothing, for the scheduler "
                f"{type(problem.scheduler).__name__} sets it by options of its own; change those "
                f"(problems.{name}.scheduler)"
            )
