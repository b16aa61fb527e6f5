"""A method whose option is a method: in Python, in YAML, written and read again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multilevel import Config, ConfigError
from multilevel.configs.schema import Experiment, experiment_schema
from multilevel.configs.yaml_text import parse, write
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.reinforce import Reinforce

YAML = "type: {name: reinforce, samples: 4, baseline: loo, inverse: {name: cg, iterations: 5}}"
METHOD = Reinforce(samples=4, baseline="loo", inverse=CG(iterations=5))


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        (parse(YAML, "x")[0], METHOD),
        ({"type": METHOD}, METHOD),
        ({"type": "reinforce"}, Reinforce()),
        ({"type": "reinforce", "reinforce_samples": 4}, Reinforce(samples=4)),
        ({"type": "reinforce", "reinforce_baseline": "ema", "reinforce_samples": 2}, Reinforce(2, "ema")),
        ({"type": {"name": "reinforce", "inverse": "cg"}}, Reinforce(inverse=CG())),
        ({"estimator": "score"}, Config().method),
    ],
    ids=range(7),
)
def test_settings_are_read_written_and_read_again(settings: dict[str, Any], method: Any) -> None:
    config = Config(**settings)
    assert config.method == method
    plain = json.loads(json.dumps(config.model_dump()))
    text = write(plain)
    again = Config(**parse(text, "x")[0])
    assert again.method == method
    assert again.estimator == config.estimator
    assert write(again.model_dump()) == text


def test_an_experiment_with_one() -> None:
    experiment = Experiment(problems={"low": {"class": "m.Low", "config": parse(YAML, "x")[0]}})
    plain = experiment.plain()
    assert plain["problems"]["low"]["config"]["type"]["inverse"]["iterations"] == 5
    assert Experiment(**parse(write(plain), "x")[0]).problems["low"].config.method == METHOD


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": {"name": "reinforce", "inverse": {"name": "cgg"}}}, ["type: ", "did you mean 'cg'"]),
        ({"type": {"name": "reinforce", "inverse": {"iterations": 2}}}, ["type: ", "inverse", "`name`"]),
        ({"type": {"name": "reinforce", "inverse": "darts"}}, ["type: ", "solves with the Hessian", "got darts"]),
        ({"type": "reinforce", "reinforce_samples": 0}, ["reinforce_samples: ", "at least 1"]),
        ({"type": "reinforce", "reinforce_baseline": "mean"}, ["reinforce_baseline: ", "'loo'", "'mean'"]),
        ({"type": "cg", "reinforce_samples": 2}, ["reinforce_samples: ", "not read by type 'cg'"]),
        ({"estimator": "scores"}, ["estimator: ", "'score'", "'scores'"]),
    ],
)
def test_refusals(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_json_schema_says_what_the_inverse_may_be() -> None:
    schema = experiment_schema()
    json.dumps(schema)
    methods = schema["$defs"]["Config"]["properties"]["type"]["anyOf"][1:]
    (options,) = (m["properties"] for m in methods if m["properties"]["name"]["const"] == "reinforce")
    assert options["inverse"]["type"] == ["string", "object"]
    assert options["inverse"]["default"] == "identity"
    assert "Hessian" not in options["samples"]["description"]
    assert options["inverse"]["description"]
