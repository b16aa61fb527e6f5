"""Running an experiment, once or with several seeds, and saying what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..configs.loader import LoadedExperiment, load
from ..hypergrad.errors import ConfigError, GraphError, MultilevelError
from .build import build
from .callbacks import Callback
from .callbacks.progress import ProgressBar
from .loggers.jsonl import MetricsFile
from .metrics import scalars
from .run_folder import RunFolder, timestamped
from .tables import table

Report = dict[str, float]


class RunFailed(MultilevelError):  # noqa: N818  it names an outcome
    """A run broke off; the traceback is in its folder."""


def run_experiment(
    which: str,
    overrides: Sequence[str] = (),
    *,
    seeds: int | None = None,
    run_dir: Path | None = None,
    allow: Iterable[str] = (),
    quiet: bool = False,
    say: Callable[[str], object] = print,
) -> list[Report]:
    """Run an experiment and say what came out.

    Args:
        which: A shipped experiment's name, or the path of a YAML file.
        overrides: ``key.path=value`` each.
        seeds: Repeat it with so many seeds, counted upward from ``engine.seed`` (0 where there is none).
        run_dir: Where to write; ``runs/<name>-<time>`` by default. With ``seeds``, the folder of the folders.
        allow: Packages that the file may import from.
        quiet: No progress bar.
        say: Prints a line.

    Raises:
        ConfigError: The experiment is wrong in some way.
        GraphError: Its edges are.
        RunFailed: The run broke off.
    """
    allow = tuple(allow)
    loaded = load(which, overrides)
    base = run_dir or timestamped(loaded.experiment.name)
    if seeds is None:
        report = _run_once(loaded, RunFolder(base), allow=allow, quiet=quiet, say=say)
        if report:
            say(table(("metric", "value"), [(name, f"{value:.4g}") for name, value in report.items()]))
        return [report]
    first = loaded.experiment.engine.seed or 0
    folders = {seed: RunFolder(base / f"seed{seed}") for seed in range(first, first + seeds)}
    reports = [
        _run_once(load(which, [*overrides, f"engine.seed={seed}"]), folder, allow=allow, quiet=quiet, say=say)
        for seed, folder in folders.items()
    ]
    say(_summary(reports))
    return reports


def _run_once(
    loaded: LoadedExperiment, folder: RunFolder, *, allow: Sequence[str], quiet: bool, say: Callable[[str], object]
) -> Report:
    callbacks: list[Callback] = [MetricsFile(folder.metrics)]
    if not quiet:
        callbacks.append(ProgressBar(loaded.experiment.name))
    engine = build(loaded, allow=allow, callbacks=callbacks)
    folder.start(loaded)  # only now: bad input leaves no folder behind
    start = time.perf_counter()
    try:
        engine.run()
        seconds = time.perf_counter() - start
        folder.save_weights(engine)  # before the report, whose code may fail
        report = scalars(engine.report(folder.path))
        folder.save_report(report)
    except (ConfigError, GraphError) as error:
        folder.fail(error)
        raise
    except KeyboardInterrupt:
        say(f"interrupted at step {engine.step_count}; what was measured is in {folder.metrics}")
        raise
    except Exception as error:
        log = folder.fail(error)
        raise RunFailed(f"step {engine.step_count}: {type(error).__name__}: {error}\ntraceback: {log}") from error
    seed = loaded.experiment.engine.seed
    seeded = "" if seed is None else f", seed {seed}"
    say(f"{loaded.experiment.name}{seeded}: {engine.step_count} steps in {seconds:.1f} s, in {folder.path}")
    return report


def _summary(reports: Sequence[Report]) -> str:
    rows = []
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        rows.append((name, f"{statistics.fmean(values):.4g}{spread}"))
    return table(("metric", f"mean ± std of {len(reports)} seeds"), rows)
