"""Which run to go on with, and whether it is the one that was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote

from ...configs.loader import LoadedExperiment, load
from ...configs.schema import Experiment
from ...hypergrad.errors import ConfigError
from .differences import differences
from .folder import MANY, RunFolder
from .many import is_many
from .plan import Plan, read_plan
from .run import Report, Terms, go_on, report_table, start
from .settings import seeded, settings

MAY_DIFFER = {"name", "description", "engine.train_iters"}
"""Settings under which it is still the same run."""
SEED = "engine.seed"
LISTED = 5
"""Runs that a message names."""


def resume_run(folder: RunFolder, overrides: Sequence[str], terms: Terms) -> None:
    """Go on with the run of a folder, under some other settings where any are given.

    Raises:
        ConfigError: There is no run in it, or it cannot go on under these settings.
    """
    if not folder.exists:
        wrong = "there is no run in it (no config.yaml)" if folder.path.exists() else "there is no such folder"
        raise ConfigError(f"{folder.path}: {wrong}{_runs_below(folder.path)}")
    loaded = load(folder.config, overrides)
    if folder.finished and not _wants_more(loaded, folder):
        say_finished(folder, terms)
        return
    say_report(go_on(loaded, folder, terms), terms)


def run_or_resume(loaded: LoadedExperiment, folder: RunFolder, terms: Terms) -> None:
    """Go on with the run of a folder where there is one, else start it there.

    Raises:
        ConfigError: The run there has other settings.
    """
    if not folder.exists:
        say_report(start(loaded, folder, terms), terms)
        return
    refuse_other(loaded.experiment, folder)
    loaded = seeded(loaded, load(folder.config).experiment.engine.seed)
    if folder.finished and not _wants_more(loaded, folder):
        say_finished(folder, terms)
    else:
        say_report(go_on(loaded, folder, terms), terms)


def unfinished(loaded: LoadedExperiment, parent: Path = Path("runs")) -> RunFolder | None:
    """The newest folder ``<parent>/<name>-*`` whose run has these settings and has not come to its end."""
    for path in _newest_first(loaded.experiment.name, parent):
        folder = RunFolder(path)
        if folder.exists and not folder.finished and not _differences(loaded.experiment, folder):
            return folder
    return None


def unfinished_many(plan: Plan, loaded: Sequence[LoadedExperiment], parent: Path = Path("runs")) -> Path | None:
    """The newest folder ``<parent>/<name>-*`` of these very runs, of which some have not come to their end."""
    for base in filter(is_many, _newest_first(plan.experiment, parent)):
        folders = [RunFolder(base / member.folder) for member in plan.members]
        try:
            refuse_others(plan, loaded, base)
        except ConfigError:
            continue
        if not all(folder.finished for folder in folders):
            return base
    return None


def timestamped(name: str, parent: Path = Path("runs")) -> Path:
    """``runs/<name>-<date>-<time>``, with a number behind where that is taken."""
    path = first = parent / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


def refuse_other(experiment: Experiment, folder: RunFolder, whole: Path | None = None) -> None:
    """Refuse to go on with a run under settings that are not its own.

    Args:
        experiment: What is asked for.
        folder: The folder of the run.
        whole: The folder of all runs, where it is one of many.

    Raises:
        ConfigError: Some differ; each is shown.
    """
    lines = _differences(experiment, folder)
    if lines:
        command = f"multilevel resume {quote(str(whole or folder.path))}"
        raise ConfigError(
            "\n  ".join([f"{folder.path}: the run in it has other settings:", *lines])
            + f"\nname another folder; or go on with what is there: {command}"
        )


def refuse_others(plan: Plan, loaded: Sequence[LoadedExperiment], base: Path) -> None:
    """Refuse to go on with many runs that are not those that are asked for.

    Raises:
        ConfigError: They are others, or have other settings.
    """
    there = {member.folder for member in read_plan(base).members}
    here = {member.folder for member in plan.members}
    if there != here:
        more = [f"only there: {_some(there - here)}"] if there - here else []
        less = [f"not there: {_some(here - there)}"] if here - there else []
        raise ConfigError(
            f"{base}: holds other runs ({'; '.join([*more, *less])}); name another folder, or go on with what is "
            f"there: multilevel resume {quote(str(base))}"
        )
    for member, wanted in zip(plan.members, loaded, strict=True):
        refuse_other(wanted.experiment, RunFolder(base / member.folder), base)


def say_report(report: Report, terms: Terms) -> None:
    """Say what came out of one run."""
    if report:
        terms.say(report_table(report))


def say_finished(folder: RunFolder, terms: Terms) -> None:
    """Say that there is nothing left to do, and what came out."""
    report = folder.report
    longer = (
        f"; to train longer: {terms.resume_command(folder.path)} engine.train_iters=N" if folder.checkpoints else ""
    )
    terms.say(f"{folder.path}: finished already{longer}")
    say_report(report, terms)


def _wants_more(loaded: LoadedExperiment, folder: RunFolder) -> bool:
    """Whether a finished run is to go on, because its settings change.

    Raises:
        ConfigError: They do, and it has no checkpoint.
    """
    before = load(folder.config).experiment
    if settings(before) == settings(loaded.experiment):
        return False
    if not folder.checkpoints:
        command = f"multilevel run {quote(str(folder.config))} [KEY=VALUE...]"
        raise ConfigError(
            f"{folder.path}: finished already, and without a checkpoint to go on from (engine.checkpoint_every was "
            f"{before.engine.checkpoint_every}); start a new one: {command}"
        )
    return True


def _differences(experiment: Experiment, folder: RunFolder) -> list[str]:
    """What a run's settings were and what they would be now, where that is not the same."""
    try:
        there = load(folder.config).experiment
    except ConfigError as error:  # by hand, or by another version
        return [str(error)]
    drawn = {SEED} if experiment.engine.seed is None else set()  # when the run began
    found = differences(settings(there), settings(experiment))
    return [str(difference) for difference in found if difference.key not in MAY_DIFFER | drawn]


def _some(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:LISTED]) + (", ..." if len(found) > LISTED else "")


def _newest_first(name: str, parent: Path) -> list[Path]:
    """The folders that :func:`timestamped` made for an experiment."""
    if not parent.is_dir():
        return []
    timed = re.compile(rf"{re.escape(name)}-(\d{{8}}-\d{{6}})(?:-(\d+))?")
    found = [(match[1], int(match[2] or 1), path) for path in parent.iterdir() if (match := timed.fullmatch(path.name))]
    return [path for *_, path in sorted(found, reverse=True)]


def _runs_below(folder: Path) -> str:
    found = sorted(path.parent for path in [*folder.glob("*/config.yaml"), *folder.glob(f"*/{MANY}")])
    return f"; runs below it: {', '.join(map(str, found))}" if found else ""
