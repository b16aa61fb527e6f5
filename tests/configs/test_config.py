"""Settings are checked when they are made, by this library's own errors."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from multilevel.configs import Config, EngineConfig
from multilevel.configs.method_settings import FLAT_FIELDS
from multilevel.hypergrad import registry
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.method import ImplicitMethod
from multilevel.hypergrad.neumann import Neumann
from multilevel.hypergrad.registry import method_class, register


def refusal(model: type, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        model(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "cg", "cg_iterations": 7, "cg_alpha": 0.5},
        {"type": {"name": "cg", "iterations": 7, "alpha": 0.5}},
        {"type": CG(iterations=7, alpha=0.5)},
    ],
    ids=["name", "mapping", "object"],
)
def test_the_three_spellings_mean_the_same_method(settings):
    assert Config(**settings).method == CG(iterations=7, alpha=0.5)


def test_darts_is_the_default_and_flat_fields_feed_the_method_of_their_name():
    assert Config().method == Darts()
    assert Config(darts_alpha=0.5).method == Darts(alpha=0.5)
    assert Config(type="neumann", neumann_iterations=3, neumann_alpha=0.1).method == Neumann(iterations=3, alpha=0.1)


@pytest.mark.parametrize("field", FLAT_FIELDS)
def test_every_flat_field_is_an_option_of_its_method_with_the_same_default(field):
    method, option = FLAT_FIELDS[field]
    defaults = {f.name: f.default for f in fields(method_class(method))}
    assert Config.model_fields[field].default == defaults[option]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "cg", "darts_alpha": 0.2}, ["darts_alpha: ", "type 'cg'", "option of 'darts'"]),
        ({"cg_iterations": 1}, ["cg_iterations: ", "type 'darts'"]),
        ({"type": {"name": "cg"}, "cg_alpha": 1.0}, ["cg_alpha: ", "a mapping", "`alpha`"]),
        ({"type": CG(), "cg_alpha": 1.0}, ["cg_alpha: ", "an object", "`alpha`"]),
    ],
)
def test_a_flat_field_that_the_type_does_not_read_is_refused(settings, words):
    message = refusal(Config, **settings)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "cgg"}, ["type: unknown method 'cgg'", "did you mean 'cg'", "available: cg, darts"]),
        ({"type": "cgg", "cg_iterations": 3}, ["unknown method 'cgg'"]),
        ({"type": {"name": "cg", "iteration": 3}}, ["type: ", "did you mean 'iterations'"]),
        ({"type": {"iterations": 3}}, ["type: ", "`name`"]),
        ({"type": CG}, ["type: ", "write CG()"]),
        ({"type": 3}, ["type: ", "method's name", "got 3"]),
        ({"darts_alpha": -1.0}, ["darts_alpha: ", "above 0", "got -1.0"]),
        ({"type": "cg", "cg_iterations": "ten"}, ["cg_iterations: ", "a whole number", "'ten'"]),
        ({"unroll_step": 2}, ["unroll_step: unknown key", "did you mean 'unroll_steps'"]),
        ({"unroll_steps": 0}, ["unroll_steps: ", "at least 1", "got 0"]),
        ({"unroll_steps": True}, ["unroll_steps: ", "a whole number", "True"]),
        ({"unroll_steps": 1.5}, ["unroll_steps: ", "a whole number", "1.5"]),
        ({"gradient_accumulation": 0}, ["gradient_accumulation: ", "at least 1"]),
        ({"gradient_clipping": -0.1}, ["gradient_clipping: ", "at least 0"]),
        ({"warmup_steps": -1}, ["warmup_steps: ", "at least 0"]),
        ({"log_step": 0}, ["log_step: ", "at least 1", "-1"]),
        ({"precision": "fp8"}, ["precision: ", "'fp32', 'bf16' or 'fp16'", "'fp8'"]),
        ({"gradient_clipping_by": "size"}, ["gradient_clipping_by: ", "'norm' or 'value'", "'size'"]),
        ({"scheduler_metric": ""}, ["scheduler_metric: "]),
    ],
)
def test_refusals_name_the_key_what_was_expected_and_what_came(settings, words):
    message = refusal(Config, **settings)
    assert message.startswith("Config: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_iters": 0}, ["train_iters: ", "at least 1"]),
        ({"valid_step": -1}, ["valid_step: ", "at least 0"]),
        ({"response": "totl"}, ["response: ", "'total' or 'direct'"]),
        ({"seed": -1}, ["seed: ", "at least 0"]),
        ({"device": "gpu0"}, ["device: ", "'cuda'", "'gpu0'"]),
        ({"log_step": 0}, ["log_step: ", "at least 1"]),
        ({"roll_back": 1}, ["roll_back: ", "true or false", "got 1"]),
        ({"checkpoint_every": -1}, ["checkpoint_every: ", "at least 0"]),
        ({"keep": 0}, ["keep: ", "at least 1"]),
        ({"non_finite": "ignore"}, ["non_finite: ", "'raise', 'skip' or 'restore'", "'ignore'"]),
        ({"loggers": ["jsonl", "tensorbord"]}, ["loggers.1: ", "did you mean 'tensorboard'"]),
        ({"loggers": [{"name": "wandb", "projct": "x"}]}, ["loggers.0.projct: ", "did you mean 'project'"]),
        ({"early_stopping": {"metric": "a"}}, ["early_stopping: ", "valid_step is 0"]),
        ({"valid_step": 1, "keep_best": {"metric": "a", "mode": "maximum"}}, ["keep_best.mode: ", "'min' or 'max'"]),
        ({"valid_step": 1, "early_stopping": {}}, ["early_stopping.metric: ", "required"]),
        ({"strategy": "ddp"}, ["strategy: ", "not available yet", "'default'"]),
        ({"train_iter": 5}, ["train_iter: ", "did you mean 'train_iters'"]),
    ],
)
def test_engine_refusals_too(settings, words):
    message = refusal(EngineConfig, **settings)
    assert all(word in message for word in words), message


def test_every_fault_is_reported_at_once():
    message = refusal(Config, unroll_steps=0, precision="fp8")
    assert "unroll_steps: " in message
    assert "precision: " in message


def test_settings_are_frozen_and_a_copy_is_checked():
    config = Config(type="cg", cg_iterations=3)
    with pytest.raises(ValueError, match="frozen"):
        config.unroll_steps = 2
    assert config.model_copy(update={"cg_iterations": 9}).method == CG(iterations=9)
    assert config.model_copy(update={"unroll_steps": 4}).unroll_steps == 4
    with pytest.raises(ConfigError, match="cg_iterations: not read by type 'darts'"):
        config.model_copy(update={"type": "darts"})


@pytest.mark.parametrize("config", [Config(), Config(type="cg", cg_iterations=3), Config(type=Neumann(4, 0.1))])
def test_written_settings_read_back_as_the_same(config):
    again = Config(**config.model_dump())
    assert again.method == config.method
    assert again.model_dump() == config.model_dump()


def test_settings_and_their_refusals_survive_pickling():
    assert pickle.loads(pickle.dumps(Config(type="cg"))).method == CG()
    with pytest.raises(ConfigError) as caught:
        Config(unroll_steps=0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_registered_method_is_available_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))

    @register("half")
    @dataclass(frozen=True)
    class Half(ImplicitMethod):
        factor: float

        def solve(self, at, vector):
            return tuple(self.factor * v for v in vector)

    assert Config(type={"name": "half", "factor": 0.5}).method == Half(0.5)
    assert "type: " in refusal(Config, type="half")
    assert "factor" in refusal(Config, type="half")


def test_a_run_folder_may_be_a_path(tmp_path: Path) -> None:
    assert EngineConfig(run_dir=tmp_path).run_dir == str(tmp_path)  # type: ignore[arg-type]
