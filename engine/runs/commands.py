"""What the commands ``run``, ``resume`` and ``sweep`` do, one run or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...configs.loader import LoadedExperiment, load
from ...hypergrad.errors import ConfigError
from .folder import RunFolder
from .group import refuse_group
from .many import go_on_many, is_many, start_many
from .plan import Plan
from .resuming import (
    refuse_others,
    resume_run,
    run_or_resume,
    say_report,
    timestamped,
    unfinished,
    unfinished_many,
)
from .run import Terms, start
from .sweep import Asked, plan_seeds, plan_sweep


def run(asked: Asked, run_dir: Path | None, terms: Terms, *, resume: bool = False) -> None:
    """Run an experiment, once or with several seeds, and say what came out.

    Args:
        asked: The experiment.
        run_dir: Where to write; ``runs/<name>-<time>`` by default. With several seeds, the folder of the folders.
        terms: What holds for every run.
        resume: Go on with the run of that folder, or with the newest unfinished run of these settings, where there is
            one.

    Raises:
        ConfigError: The experiment is wrong in some way, the folder cannot be used, or a launcher started several
            processes.
        GraphError: Its edges are.
        RunFailed: A run broke off.
        RunInterrupted: Somebody stopped it.
    """
    refuse_group()
    if asked.seeds is not None:
        _run_many(*plan_seeds(asked, terms), run_dir, terms, resume=resume)
        return
    if asked.jobs is not None:
        raise ConfigError("--jobs: there is one run; give --seeds as well, or leave it out")
    loaded = load(asked.which, asked.overrides)
    if not resume:
        say_report(start(loaded, RunFolder(run_dir or _default(loaded)), terms), terms)
        return
    found = RunFolder(run_dir) if run_dir is not None else unfinished(loaded)
    run_or_resume(loaded, found or RunFolder(_default(loaded)), terms)


def sweep(asked: Asked, run_dir: Path | None, terms: Terms, *, resume: bool = False) -> None:
    """Run an experiment with every combination of some settings, and say what came out.

    Args:
        asked: The experiment, and the settings.
        run_dir: The folder of the folders; ``runs/<name>-<time>`` by default.
        terms: What holds for every run.
        resume: As in :func:`run`.

    Raises:
        ConfigError: One of the settings is wrong in some way, or the folder cannot be used.
        GraphError: The edges are.
        RunFailed: Some runs broke off.
        RunInterrupted: Somebody stopped them.
    """
    refuse_group()
    _run_many(*plan_sweep(asked, terms), run_dir, terms, resume=resume)


def resume(folder: Path, overrides: Sequence[str], jobs: int | None, terms: Terms) -> None:
    """Go on with the run, or the many runs, of a folder.

    Args:
        folder: The folder.
        overrides: ``key.path=value`` each: settings that change from here on.
        jobs: How many at a time, of many; as before where not given.
        terms: What holds for every run.

    Raises:
        ConfigError: There is no run in it, or it cannot go on under these settings.
        GraphError: The edges are wrong.
        RunFailed: A run broke off.
        RunInterrupted: Somebody stopped it.
    """
    refuse_group()
    if is_many(folder):
        go_on_many(folder, overrides, jobs, terms)
    elif jobs is not None and RunFolder(folder).exists:
        raise ConfigError(f"--jobs: {folder} is a single run; leave it out")
    else:
        resume_run(RunFolder(folder), overrides, terms)


def _run_many(plan: Plan, loaded: list[LoadedExperiment], run_dir: Path | None, terms: Terms, *, resume: bool) -> None:
    base = run_dir
    if base is None and resume:
        base = unfinished_many(plan, loaded)
    base = base or _default(loaded[0])
    if not (resume and is_many(base)):
        start_many(plan, loaded, base, terms)
        return
    refuse_others(plan, loaded, base)
    go_on_many(base, (), plan.jobs, terms)


def _default(loaded: LoadedExperiment) -> Path:
    """Where to write unless somebody says so."""
    chosen = loaded.experiment.engine.run_dir
    return Path(chosen) if chosen is not None else timestamped(loaded.experiment.name)
