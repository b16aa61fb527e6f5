"""Experiments that are built to be looked at, and write nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...configs.loader import LoadedExperiment
from ..build import build
from ..engine import Engine

NOWHERE = Path("runs")
"""A folder for what asks for one when it is built; nothing is written before the run starts."""


def dry_build(loaded: LoadedExperiment, allow: Iterable[str] = ()) -> Engine:
    """Build everything that a run would have, loggers and checkpoints included, without its folder.

    Raises:
        ConfigError: A part cannot be constructed.
        GraphError: The edges do not form a hierarchy.
    """
    return build(loaded, allow=allow, run_dir=NOWHERE)


def check(loaded: LoadedExperiment, allow: Iterable[str] = ()) -> None:
    """Find out whether an experiment can be built, on the CPU where the device is left open: a process that only
    starts others is to hold no memory of an accelerator.

    Raises:
        ConfigError: It cannot.
        GraphError: The edges do not form a hierarchy.
    """
    on_cpu = loaded.experiment.engine.device == "auto"
    dry_build(_with(loaded, device="cpu") if on_cpu else loaded, allow)


def unwatched(loaded: LoadedExperiment) -> LoadedExperiment:
    """The same experiment without what writes or stops: for steps that are no run."""
    return _with(loaded, checkpoint_every=0, keep_best=None, early_stopping=None, loggers=())


def _with(loaded: LoadedExperiment, **settings: Any) -> LoadedExperiment:
    engine = loaded.experiment.engine.model_copy(update=settings)
    return replace(loaded, experiment=loaded.experiment.model_copy(update={"engine": engine}))
