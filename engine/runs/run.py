"""Running one experiment, or going on with it, and saying what came out."""

from __future__ import annotations

import shlex
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...configs.loader import LoadedExperiment
from ...hypergrad.errors import ConfigError, GraphError, MultilevelError
from ..build import build
from ..callbacks import Callback
from ..callbacks.progress import ProgressBar
from ..engine import Engine
from ..loggers.jsonl import JsonLines
from ..metrics import scalars
from ..tables import table
from .changes import Changes
from .folder import RunFolder
from .settings import seeded

Report = dict[str, float]


class RunFailed(MultilevelError):  # noqa: N818  it names an outcome
    """A run broke off; the traceback is in its folder."""


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal.

    Args:
        message: Where it stopped, and how to go on.
        exit_code: What the process is to end with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Terms:
    """What holds for every run of a command.

    Args:
        allow: Packages that the file may import from.
        quiet: No progress bar.
        say: Prints a line.
    """

    allow: tuple[str, ...] = ()
    quiet: bool = False
    say: Callable[[str], object] = print

    def resume_command(self, folder: Path) -> str:
        """What to type to go on with a run."""
        flags = [word for package in self.allow for word in ("--allow-import", package)]
        return shlex.join(["multilevel", "resume", str(folder), *flags])


def start(loaded: LoadedExperiment, folder: RunFolder, terms: Terms) -> Report:
    """Train from the beginning, in a folder that has no run yet.

    Returns:
        The final metrics.

    Raises:
        ConfigError: The experiment is wrong in some way, or the folder cannot be used.
        GraphError: Its edges are.
        RunFailed: The run broke off.
        RunInterrupted: Somebody stopped it.
    """
    folder.refuse_taken()
    loaded = seeded(loaded)
    engine = _engine(loaded, folder, terms)
    with folder.held():  # only now: bad input leaves no folder behind
        folder.start(loaded)
        try:
            return _train(engine, loaded, folder, terms)
        except ConfigError:
            if engine.step_count == 0:  # a logger that cannot start, say: nothing was trained, so nothing is there
                folder.unstart()
            raise


def go_on(loaded: LoadedExperiment, folder: RunFolder, terms: Terms) -> Report:
    """Train on from the newest good checkpoint of a folder; from the beginning where it has none.

    Args:
        loaded: The settings from here on; they are written into the folder.
        folder: Its folder.
        terms: What holds for every run.

    Returns:
        The final metrics.

    Raises:
        ConfigError: The settings do not fit the checkpoint, or another process is at work in the folder.
        GraphError: The edges are wrong.
        RunFailed: The run broke off.
        RunInterrupted: Somebody stopped it.
    """
    with folder.held():
        engine = _engine(loaded, folder, terms)
        changes = Changes(loaded, folder, terms.allow)
        step = engine.resume(partial(changes.bring_into, engine=engine))
        _refuse_shorter(engine, folder)
        changed = folder.changed_files(loaded)
        folder.reopen(loaded)
        if step is None:
            folder.forget_metrics()
            terms.say(f"{folder.path}: no checkpoint yet: starting at step 0")
        else:
            terms.say(f"{folder.path}: resumed at step {step} of {engine.config.train_iters}")
        for line in changes.lines():
            terms.say(f"{folder.path}: {line}")
        for file in changed:
            terms.say(f"{folder.path}: {file} has changed since the run began; from here on the new one is used")
        return _train(engine, loaded, folder, terms)


def report_table(report: Report) -> str:
    """The final metrics of one run."""
    return table(("metric", "value"), [(name, f"{value:.4g}") for name, value in report.items()])


def _engine(loaded: LoadedExperiment, folder: RunFolder, terms: Terms) -> Engine:
    watching: list[Callback] = []
    if not any(logger.name == JsonLines.name for logger in loaded.experiment.engine.loggers):
        watching.append(JsonLines(folder.metrics))  # what `plot` and `report` read, whatever else is written
    if not terms.quiet:
        watching.append(ProgressBar(loaded.experiment.name))
    return build(loaded, allow=terms.allow, callbacks=watching, run_dir=folder.path)


def _train(engine: Engine, loaded: LoadedExperiment, folder: RunFolder, terms: Terms) -> Report:
    first, began = engine.step_count, time.perf_counter()
    with engine, _endings(engine, folder, terms):
        engine.run()
        seconds = time.perf_counter() - began
        folder.save_weights(engine)  # before the report, whose code may fail
        kept = None if folder.checkpoints else engine.save_checkpoint()  # a report may train for long, and be stopped
        folder.save_timing(engine)
        report = scalars(engine.report(folder.path))
        folder.save_report(report)
        if kept is not None:
            kept.unlink()
    seed = loaded.experiment.engine.seed
    name = loaded.experiment.name if seed is None else f"{loaded.experiment.name}, seed {seed}"
    terms.say(f"{name}: {_steps(first, engine.step_count)} in {seconds:.1f} s, in {folder.path}")
    return report


def _refuse_shorter(engine: Engine, folder: RunFolder) -> None:
    if engine.step_count > engine.config.train_iters:
        raise ConfigError(
            f"{folder.path}: is at step {engine.step_count} already, beyond engine.train_iters="
            f"{engine.config.train_iters}; give more than that, or start a new run"
        )


def _steps(first: int, last: int) -> str:
    if first == last:
        return f"no step after step {last}"
    return f"steps {first + 1} to {last}" if first else f"{last} steps"


@contextmanager
def _endings(engine: Engine, folder: RunFolder, terms: Terms) -> Iterator[None]:
    """Turn what ends a run early into what to tell the user, and how to go on."""
    try:
        yield
    except (ConfigError, GraphError) as error:
        _keep(folder, error)
        raise
    except KeyboardInterrupt as stop:
        raise RunInterrupted(
            f"interrupted at step {engine.step_count}; {_how_to_go_on(engine, folder, terms)}",
            getattr(stop, "exit_code", 130),
        ) from stop
    except Exception as error:
        kept = _keep(folder, error)
        further = f"\n{_how_to_go_on(engine, folder, terms)}" if folder.checkpoints else ""
        raise RunFailed(f"step {engine.step_count}: {type(error).__name__}: {error}\n{kept}{further}") from error


def _keep(folder: RunFolder, error: Exception) -> str:
    """Write the traceback of an error and say where; where the disk is full, say the traceback."""
    try:
        return f"traceback: {folder.fail(error)}"
    except OSError as unwritable:
        lines = "".join(traceback.format_exception(error)).rstrip()
        return f"its traceback cannot be written ({unwritable.strerror or unwritable}):\n{lines}"


def _how_to_go_on(engine: Engine, folder: RunFolder, terms: Terms) -> str:
    command = terms.resume_command(folder.path)
    if not folder.checkpoints:
        return f"there is no checkpoint; start again with: {command}"
    step = int(folder.checkpoints[0].stem.rpartition("-")[2])
    there = "" if step == engine.step_count else f"from step {step} "
    return f"go on {there}with: {command}"
