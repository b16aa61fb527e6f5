"""Many runs of one experiment, each in a process and a folder of its own, and one table in the end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...configs.loader import LoadedExperiment, load
from ...hypergrad.errors import choices
from . import comparison
from .changes import refuse_fixed
from .children import Children, Ended, Task
from .dry import check
from .folder import MANY, RunFolder
from .plan import Member, Outcome, Plan, outcome, read_plan, select
from .progress import Progress
from .run import Report, RunFailed, RunInterrupted, Terms

STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a run that was told to stop."""


def start_many(plan: Plan, loaded: Sequence[LoadedExperiment], base: Path, terms: Terms) -> list[Report]:
    """Make the folder of every run, then run them all.

    From here on the experiment's own file and code may change: every run uses what is in its folder.

    Args:
        plan: The runs.
        loaded: The settings of each.
        base: The folder of their folders.
        terms: What holds for every run.

    Returns:
        The final metrics of those that finished.

    Raises:
        ConfigError: The folder cannot be used.
        RunFailed: Some failed; the others were run to their end all the same.
        RunInterrupted: Somebody stopped them.
    """
    parent = RunFolder(base)
    parent.refuse_taken()
    with parent.held():
        for member, experiment in zip(plan.members, loaded, strict=True):
            folder = RunFolder(base / member.folder)
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.start(experiment)
        comparison.save(plan, [outcome(base, member) for member in plan.members], base)
        return _run(plan, base, (), terms)


def go_on_many(base: Path, overrides: Sequence[str], jobs: int | None, terms: Terms) -> list[Report]:
    """Go on with every run of a folder that has not finished; under other settings, with every run.

    Args:
        base: The folder of their folders.
        overrides: ``key.path=value`` each, for all of them.
        jobs: How many at a time; as before where not given.
        terms: What holds for every run.

    Returns:
        The final metrics of those that finished.

    Raises:
        ConfigError: An override does not fit, or another process is at work in the folder.
        RunFailed: Some failed; the others were run to their end all the same.
        RunInterrupted: Somebody stopped them.
    """
    plan = read_plan(base)
    if jobs is not None:
        plan = Plan(plan.experiment, plan.members, jobs, plan.metric)
    with RunFolder(base).held():
        return _run(plan, base, overrides, terms)


def is_many(folder: Path) -> bool:
    """Whether a folder is one of many runs."""
    return (folder / MANY).is_file()


def _run(plan: Plan, base: Path, overrides: Sequence[str], terms: Terms) -> list[Report]:
    before = [outcome(base, member) for member in plan.members]
    todo = [run.member for run in before if overrides or run.status != "finished"]
    if not todo:
        terms.say(f"{base}: all {len(before)} runs are finished already")
    elif len(todo) < len(before):
        terms.say(f"{base}: {len(before) - len(todo)} of {len(before)} runs are finished, going on with the others")
    lengths = _lengths(base, todo, overrides, terms)
    children = Children(plan.jobs)
    with Progress(plan, base, lengths, terms) as progress:
        tasks = [_task(base, member, overrides, terms) for member in todo]
        for ended in children.run(tasks, progress.look):
            found = _settle(base, todo[ended.number], ended)
            progress.ended(found, ended.seconds)
            _save(plan, base, terms)
    return _conclude(plan, base, children.stopped_by, terms)


def _lengths(base: Path, members: Sequence[Member], overrides: Sequence[str], terms: Terms) -> dict[str, int]:
    """The engine steps of each run, by folder.

    Raises:
        ConfigError: An override does not fit one of them.
    """
    lengths = {}
    for member in members:
        folder = RunFolder(base / member.folder)
        loaded = load(folder.config, overrides)
        if overrides:
            check(loaded, terms.allow)
            if folder.checkpoints:
                refuse_fixed(load(folder.config).experiment, loaded.experiment, folder)
        lengths[member.folder] = loaded.experiment.engine.train_iters
    return lengths


def _task(base: Path, member: Member, overrides: Sequence[str], terms: Terms) -> Task:
    folder = RunFolder(base / member.folder)
    folder.forget_error()
    flags = [word for package in terms.allow for word in ("--allow-import", package)]
    return Task(("resume", str(folder.path), *overrides, "--quiet", *flags), folder.path / "output.txt")


def _settle(base: Path, member: Member, ended: Ended) -> Outcome:
    """How a run stands whose process has ended; where that left no traceback, write down why it ended."""
    found = outcome(base, member)
    if found.status == "unfinished" and ended.code not in STOPPED:
        with suppress(OSError):  # on a full disk the others go on as well as they can
            RunFolder(base / member.folder).fail(_why(ended))
        found = outcome(base, member)
    return found


def _save(plan: Plan, base: Path, terms: Terms) -> None:
    try:
        comparison.save(plan, [outcome(base, member) for member in plan.members], base)
    except OSError as error:
        terms.say(f"{base}: {MANY} and {comparison.CSV} cannot be written now ({error.strerror or error})")


def _why(ended: Ended) -> str:
    said = ended.output.strip()
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        guess = " (out of memory?)" if name == "SIGKILL" else ""
        return f"{said}\nkilled by {name}{guess}\n".lstrip()
    return said.removeprefix("error: ") + "\n" if said else f"ended with exit code {ended.code}\n"


def _conclude(plan: Plan, base: Path, stopped_by: int | None, terms: Terms) -> list[Report]:
    """Say what came out of all runs."""
    outcomes = [outcome(base, member) for member in plan.members]
    finished, failed = select(outcomes, "finished"), select(outcomes, "failed")
    metrics = comparison.metrics_of(outcomes)
    if plan.metric is not None and metrics and plan.metric not in metrics:
        terms.say(f"no run reports a metric '{plan.metric}'{choices(plan.metric, metrics, 'metrics')}")
    if finished:
        terms.say(comparison.results(plan, outcomes))
    if failed:
        terms.say(f"\n{comparison.failures(failed, base)}")
    terms.say(f"\nin {base}: {MANY}, {comparison.CSV}, and a folder for each run")
    command = terms.resume_command(base)
    done = f"{len(finished)} of {len(outcomes)} runs are finished"
    if stopped_by is not None:
        raise RunInterrupted(f"interrupted; {done}; go on with: {command}", 128 + stopped_by)
    if failed:
        raise RunFailed(f"{len(failed)} of {len(outcomes)} runs; when the cause is mended, go on with: {command}")
    if len(finished) < len(outcomes):
        raise RunFailed(f"some runs were stopped from outside: {done}; go on with: {command}")
    return [run.report for run in finished]
