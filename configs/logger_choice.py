"""Where the metrics of a run are written: loggers by name, or by a mapping of name and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ..hypergrad.errors import ConfigError, choices
from .validation import Settings, refuse, under


class LoggerSettings(Settings):
    """Base of the settings of one logger."""

    name: str


class ConsoleSettings(LoggerSettings):
    """Lines on standard error."""

    name: Literal["console"] = "console"


class JsonLinesSettings(LoggerSettings):
    """One JSON object a line, in ``metrics.jsonl``."""

    name: Literal["jsonl"] = "jsonl"


class CsvSettings(LoggerSettings):
    """One row for each number, in ``metrics.csv``."""

    name: Literal["csv"] = "csv"


class TensorBoardSettings(LoggerSettings):
    """Event files in ``tensorboard/``: scalars, the graph of the problems, hyperparameters."""

    name: Literal["tensorboard"] = "tensorboard"


class WandbSettings(LoggerSettings):
    """Weights & Biases.

    Args:
        project: The project.
        entity: The user or team; W&B's own default where there is none.
        run_name: What the run is called; the name of the run folder by default.
        mode: Offline, it is all in ``wandb/`` and sent later; by default what ``WANDB_MODE`` says, else online.
    """

    name: Literal["wandb"] = "wandb"
    project: str = Field(default="multilevel", min_length=1)
    entity: str | None = None
    run_name: str | None = None
    mode: Literal["online", "offline"] | None = None


class MLflowSettings(LoggerSettings):
    """MLflow, in ``mlflow.db`` of the run folder.

    Args:
        experiment: The experiment, made where it does not exist.
        run_name: What the run is called; the name of the run folder by default.
        tracking_uri: A server, or another database, in place of the run folder's.
    """

    name: Literal["mlflow"] = "mlflow"
    experiment: str = Field(default="multilevel", min_length=1)
    run_name: str | None = None
    tracking_uri: str | None = None


LOGGERS: dict[str, type[LoggerSettings]] = {
    str(model.model_fields["name"].default): model
    for model in (
        ConsoleSettings,
        JsonLinesSettings,
        CsvSettings,
        TensorBoardSettings,
        WandbSettings,
        MLflowSettings,
    )
}
"""The settings of each logger, by its name."""

Spelling = str | Mapping[str, Any] | LoggerSettings


def logger_settings(spellings: Sequence[Spelling]) -> tuple[LoggerSettings, ...]:
    """The settings that some spellings mean: names, mappings with ``name``, or settings already.

    Raises:
        ConfigError: Not a list, an unknown logger or option, or one logger twice.
    """
    if isinstance(spellings, str) or not isinstance(spellings, Sequence):
        raise ConfigError(f"expected a list of loggers, as in ['jsonl', 'tensorboard'], got {spellings!r}")
    found: list[LoggerSettings] = []
    for i, spelling in enumerate(spellings):
        with under(i):
            settings = _one(spelling)
            if any(other.name == settings.name for other in found):
                raise refuse(f"'{settings.name}' is there twice; keep one of the two")
        found.append(settings)
    return tuple(found)


def _one(spelling: Any) -> LoggerSettings:
    if isinstance(spelling, LoggerSettings):
        return spelling
    options = {"name": spelling} if isinstance(spelling, str) else spelling
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise refuse(
            f"expected a logger's name or a mapping with `name`, got {spelling!r} (logger objects go into "
            f"Engine(callbacks=[...])){choices('', LOGGERS)}"
        )
    name = options["name"]
    if name not in LOGGERS:
        path = () if isinstance(spelling, str) else ("name",)
        raise refuse(f"unknown logger '{name}'{choices(name, LOGGERS)}", *path)
    return LOGGERS[name](**options)


class _Spellings:
    """Tells pydantic what the spellings look like, and writes each logger with all its options."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_plain_validator_function(logger_settings, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        mappings = [{**model.model_json_schema(), "required": ["name"]} for model in LOGGERS.values()]
        return {"type": "array", "items": {"anyOf": [{"enum": list(LOGGERS)}, *mappings]}}


def _written(loggers: tuple[LoggerSettings, ...]) -> list[Any]:
    # A logger that has no options is written by its name alone.
    return [logger.model_dump() if len(type(logger).model_fields) > 1 else logger.name for logger in loggers]


LoggerChoices = Annotated[tuple[LoggerSettings, ...], _Spellings()]
