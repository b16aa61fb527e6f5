"""Where the metrics of a run are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ...configs.logger_choice import LoggerSettings, MLflowSettings
from ...hypergrad.errors import ConfigError
from .base import Logger as Logger
from .base import Record as Record
from .console import Console
from .csv import Csv
from .jsonl import JsonLines
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .wandb import Wandb

WRITERS: dict[str, tuple[Callable[..., Logger], str]] = {
    "jsonl": (JsonLines, "metrics.jsonl"),
    "csv": (Csv, "metrics.csv"),
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (Wandb, ""),
    "mlflow": (MLflow, ""),
}
"""What writes files, and where in the run folder."""


def build_loggers(choices: Iterable[LoggerSettings], run_dir: Path | None) -> list[Logger]:
    """The loggers that some settings describe. Their packages are imported when a run starts, not here.

    Args:
        choices: The settings, as ``EngineConfig.loggers`` holds them.
        run_dir: The folder that they write into.

    Raises:
        ConfigError: A package is not installed, or a logger writes files and there is no folder.
    """
    return [_build(choice, run_dir) for choice in choices]


def _build(choice: LoggerSettings, run_dir: Path | None) -> Logger:
    if choice.name == "console":
        return Console()
    if run_dir is None and not (isinstance(choice, MLflowSettings) and choice.tracking_uri):
        raise ConfigError(
            f"logger '{choice.name}': needs a folder to write to; give EngineConfig(run_dir=...), as `multilevel run` "
            "does by itself"
        )
    make, place = WRITERS[choice.name]
    return make((run_dir or Path()) / place, **choice.model_dump(exclude={"name"}))
