"""What a run is, wherever its folder: its settings, and the code that they name."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from ...configs.loader import LoadedExperiment
from ...configs.schema import Experiment
from ...configs.yaml_text import write

BESIDE = re.compile(r"^([^:]+\.py):\w+$")


def settings(experiment: Experiment) -> dict[str, Any]:
    """What a run is, as plain data: its folder is left out, which may be moved."""
    found = experiment.plain()
    found["engine"].pop("run_dir", None)
    return found


def seeded(loaded: LoadedExperiment, seed: int | None = None) -> LoadedExperiment:
    """The experiment with a seed where it has none: the one given, or else one that is drawn.

    A run that is gone on with builds everything anew: data splits and starting points must be those of the first time.
    """
    experiment = loaded.experiment
    if experiment.engine.seed is not None:
        return loaded
    engine = experiment.engine.model_copy(update={"seed": secrets.randbelow(2**31) if seed is None else seed})
    return dataclasses.replace(loaded, experiment=experiment.model_copy(update={"engine": engine}))


def dump(experiment: Experiment) -> str:
    """The YAML of a run, every default written out."""
    return write(settings(experiment))


def files_named(experiment: Experiment) -> list[str]:
    """The Python files beside an experiment that it names."""
    return list(dict.fromkeys(_files(experiment.plain())))


def _files(value: Any) -> Iterator[str]:
    """The files in every ``class: file.py:Name``."""
    if isinstance(value, Mapping):
        named = BESIDE.match(str(value.get("class", "")))
        if named:
            yield named[1]
        for item in value.values():
            yield from _files(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _files(item)
