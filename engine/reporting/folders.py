"""Which runs a path means: the folder of a run, of its seeds, or of a whole sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from ...hypergrad.errors import ConfigError, choices
from ..runs.folder import MANY
from ..runs.plan import read_plan
from .records import RunRecord, is_run, read_run

SEED = re.compile(r"seed[-_=]?\d+")
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
RUNS = Path("runs")
"""Where runs are written to by default."""
DEEPEST = 3
"""Folders below a given one that are searched."""
NAMED = 8
"""Runs that an error message lists."""


@dataclass(frozen=True)
class Group:
    """Runs that are drawn as one: the seeds of an experiment, or a single run.

    Attributes:
        label: What a legend calls it.
        runs: The runs.
    """

    label: str
    runs: list[RunRecord]


@dataclass(frozen=True)
class _Found:
    """Folders of runs that are drawn as one, and what distinguishes them within ``folder``."""

    folder: Path
    runs: list[Path]
    settings: str = ""


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """Read every run that some folders stand for.

    Args:
        paths: Folders of runs, of seeds, or of folders of those.

    Raises:
        ConfigError: One of them is no such folder.
    """
    found: list[_Found] = []
    for path in paths:
        here = _expanded(_folder(path))
        if not here:
            raise _nothing(path)
        found += [group for group in here if group not in found]
    labels = _labels(found)
    return [Group(label, [read_run(run) for run in group.runs]) for label, group in zip(labels, found, strict=True)]


def read_one(path: Path) -> RunRecord:
    """Read the run of a folder.

    Raises:
        ConfigError: It is not the folder of one run.
    """
    folder = _folder(path)
    if is_run(folder):
        return read_run(folder)
    runs = [run for group in _expanded(folder) for run in group.runs]
    if not runs:
        raise _nothing(path)
    some = ", ".join(map(str, runs[:NAMED])) + (", ..." if len(runs) > NAMED else "")
    raise ConfigError(
        f"{path}: a report is about one run, and there are {len(runs)} in it; name one: {some} "
        f"(or draw them together: multilevel plot {quote(str(path))})"
    )


def _folder(path: Path) -> Path:
    if path.is_dir():
        return path
    if path.exists():
        raise ConfigError(f"{path}: expected the folder of a run, got a file; try {path.parent}")
    raise ConfigError(f"no folder {path} (looked from {Path.cwd()}){_known_runs(path)}")


def _expanded(path: Path, depth: int = 0) -> list[_Found]:
    """The runs in a folder, those that differ in their seed alone together."""
    if is_run(path):
        return [_Found(path, [path])]
    if (path / MANY).is_file():
        with suppress(ConfigError):  # the record is damaged: what the folders are called will do
            return _planned(path)
    if depth == DEEPEST:
        return []
    below = sorted(_folders_in(path), key=_natural)
    seeds = [child for child in below if SEED.fullmatch(child.name) and is_run(child)]
    found = [_Found(path, seeds)] if seeds else []
    for child in below:
        if child not in seeds:
            found += _expanded(child, depth + 1)
    return found


def _planned(path: Path) -> list[_Found]:
    """The runs of a sweep, by their settings."""
    plan = read_plan(path)
    found: dict[str, _Found] = {}
    for member in plan.members:
        if is_run(path / member.folder):
            label = replace(member, seed=None).label
            found.setdefault(label, _Found(path, [], label)).runs.append(path / member.folder)
    return list(found.values())


def _natural(path: Path) -> list[tuple[float, str]]:
    """seed2 before seed10, and 0.003 before 0.01."""
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(NUMBER.split(path.name))]


def _labels(found: list[_Found]) -> list[str]:
    """Folder names, or, where two are the same, what differs of their paths; settings go without their folder."""
    folders = {group.folder: group.folder.resolve() for group in found}
    common = Path(os.path.commonpath([full.parent for full in folders.values()]))
    alike = len({full.name for full in folders.values()}) < len(folders)
    names = {path: str(full.relative_to(common)) if alike else full.name for path, full in folders.items()}
    if len(folders) == 1:
        return [group.settings or names[group.folder] for group in found]
    return [", ".join(filter(None, [names[group.folder], group.settings])) for group in found]


def _nothing(path: Path) -> ConfigError:
    return ConfigError(f"{path}: there is no run in it (a run has config.yaml and metrics.jsonl){_known_runs(path)}")


def _known_runs(wanted: Path) -> str:
    """What there is instead, and which of it is the nearest."""
    here = {*_folders_in(RUNS), *_folders_in(wanted.parent)} - {RUNS, wanted}
    near = sorted((path for path in here if _expanded(path, DEEPEST - 1)), key=lambda path: -path.stat().st_mtime)
    return choices(str(wanted), map(str, near[:NAMED]), "runs here")


def _folders_in(path: Path) -> list[Path]:
    try:
        return [child for child in path.iterdir() if child.is_dir()]
    except OSError:  # not there, or not ours to read
        return []
