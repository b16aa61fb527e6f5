"""What watches a run."""

from __future__ import annotations

from collections.abc import Iterable

from ...configs import EngineConfig
from .base import Callback as Callback
from .base import Callbacks as Callbacks
from .early_stopping import EarlyStopping as EarlyStopping
from .keep_best import KeepBest as KeepBest
from .monitor import Monitor as Monitor
from .progress import ProgressBar as ProgressBar
from .timing import Timing as Timing


def configured(
    config: EngineConfig, given: Callback | Iterable[Callback] = (), loggers: Iterable[Callback] = ()
) -> list[Callback]:
    """The callbacks of a run, in the order in which they are called.

    What the settings ask for goes around the others: these write what the monitor measured, find the best parameters
    restored when the run ends, and are up to date in the best checkpoints.

    Args:
        config: The settings.
        given: The user's callbacks, or the one.
        loggers: What the settings say to write to.
    """
    own = [*given] if isinstance(given, Iterable) else [given]
    before: list[Callback] = [Monitor()] if config.monitor else []
    if config.early_stopping is not None:
        before.append(EarlyStopping(**config.early_stopping.model_dump()))
    after: list[Callback] = [KeepBest(**config.keep_best.model_dump())] if config.keep_best is not None else []
    if config.timing:
        after.append(Timing())
    return [*before, *own, *loggers, *after]
