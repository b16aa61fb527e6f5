"""How loggers are spelt, in Python and in YAML, and what is refused."""

from __future__ import annotations

import json

import pytest

from multilevel.configs.logger_choice import LOGGERS, LoggerChoices, WandbSettings, logger_settings
from multilevel.configs.validation import Settings
from multilevel.configs.yaml_text import parse, write
from multilevel.hypergrad.errors import ConfigError


class Holder(Settings):
    """Holds loggers as the engine's settings do."""

    loggers: LoggerChoices = ()


SPELT = ["jsonl", {"name": "wandb", "project": "digits", "mode": "offline"}, {"name": "csv"}]


def test_a_logger_is_a_name_a_mapping_or_settings():
    assert [settings.name for settings in Holder(loggers=SPELT).loggers] == ["jsonl", "wandb", "csv"]
    assert Holder(loggers=["wandb"]).loggers == (WandbSettings(),) == Holder(loggers=[WandbSettings()]).loggers
    assert Holder().loggers == ()


def test_written_settings_read_back_as_the_same():
    held = Holder(loggers=SPELT)
    assert Holder(**held.model_dump()) == held
    assert Holder(loggers=held.loggers) == held
    text = write(held.model_dump())
    assert Holder(**parse(text, "x")[0]) == held
    assert held.model_dump()["loggers"][0] == "jsonl"
    assert held.model_copy(update={"loggers": ["csv"]}).loggers[0].name == "csv"


@pytest.mark.parametrize(
    ("loggers", "words"),
    [
        (
            ["jsonl", "wandbb"],
            ["loggers.1: unknown logger 'wandbb'", "did you mean 'wandb'", "available: console"],
        ),
        ([{"name": "tensorbord"}], ["loggers.0.name: unknown logger", "did you mean 'tensorboard'"]),
        ([{"name": "wandb", "projects": "x"}], ["loggers.0.projects: unknown key", "did you mean 'project'"]),
        ([{"name": "wandb", "mode": "offlin"}], ["loggers.0.mode: ", "'online' or 'offline'", "'offlin'"]),
        ([{"name": "mlflow", "experiment": ""}], ["loggers.0.experiment: "]),
        ([{"name": "csv", "project": "x"}], ["loggers.0.project: unknown key"]),
        ([{"project": "x"}], ["loggers.0: ", "mapping with `name`"]),
        (["jsonl", 3], ["loggers.1: ", "got 3", "Engine(callbacks=[...])"]),
        (["csv", {"name": "csv"}], ["loggers.1: 'csv' is there twice"]),
        ("jsonl", ["loggers: expected a list of loggers", "got 'jsonl'"]),
        ({"name": "csv"}, ["loggers: expected a list of loggers"]),
    ],
)
def test_refusals_name_the_key_and_the_way_out(loggers, words):
    with pytest.raises(ConfigError) as caught:
        Holder(loggers=loggers)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_json_schema_has_every_logger_with_its_options():
    schema = Holder.model_json_schema()
    json.dumps(schema)
    names, *mappings = schema["properties"]["loggers"]["items"]["anyOf"]
    assert names["enum"] == list(LOGGERS)
    options = {mapping["properties"]["name"]["const"]: mapping for mapping in mappings}
    assert set(options) == set(LOGGERS)
    assert options["wandb"]["properties"]["project"]["description"] == "The project."
    assert all(mapping["required"] == ["name"] for mapping in mappings)
    assert all(mapping["additionalProperties"] is False for mapping in mappings)


def test_the_settings_of_a_logger_are_found_by_its_name():
    assert all(logger_settings([name])[0].name == name for name in LOGGERS)
