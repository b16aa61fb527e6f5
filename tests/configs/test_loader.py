"""Files, shipped or given by path: read safely, overridden, and refused with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from multilevel.configs.loader import LoadedExperiment, dump, find, load, loads, shipped
from multilevel.configs.yaml_text import parse, write
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.errors import ConfigError

TEXT = """\
engine: {train_iters: 10}
problems:
  policy:
    class: a.Policy
    optimizer:
      class: torch.optim.SGD
      lr: 0.1
    config:
      type: cg
  lower:
    class: a.Lower
    data:
    - {class: a.x}
    - {class: a.y}
edges:
- [policy, lower]
"""


def read(text: str = TEXT, *overrides: str) -> LoadedExperiment:
    return loads(text, Path("some/file.yaml"), overrides)


def refusal(text: str = TEXT, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, *overrides)
    return str(caught.value)


def test_a_file_is_an_experiment_named_after_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(TEXT)
    loaded = load(tmp_path / "mine.yaml")
    assert loaded.experiment.name == "mine"
    assert loaded.experiment.engine.train_iters == 10
    assert loaded.experiment.problems["policy"].config.method == CG()
    assert loaded.folder == tmp_path.resolve()


def test_every_shipped_experiment_is_valid():
    for name, path in shipped().items():
        assert find(name) == path
        assert load(name).experiment.description, f"{name}: `multilevel list` prints its description"


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("no-such-experiment", ["'no-such-experiment'", "shipped: ", "path"]),
        ("missing.yaml", ["no file missing.yaml"]),
    ],
)
def test_what_is_not_there_is_named(which, words):
    with pytest.raises(ConfigError) as caught:
        load(which)
    assert all(word in str(caught.value) for word in words)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read"):
        load(tmp_path / "x.yaml")


def test_errors_have_file_line_key_and_nearest_name():
    message = refusal(TEXT.replace("type: cg", "type: cgg"))
    assert message.startswith("file.yaml:9: problems.policy.config.type: problem 'policy': unknown method 'cgg'; ")
    assert "did you mean 'cg'? available: cg, darts" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("edges", "edgs"), ["file.yaml:15: edgs: ", "did you mean 'edges'"]),
        (TEXT.replace("[policy, lower]", "[policy, lowr]"), ["file.yaml:16: edges.0: ", "did you mean 'lower'"]),
        (TEXT.replace("lr: 0.1", "1: 2"), ["file.yaml:5: problems.policy.optimizer: ", "texts", "got 1"]),
        ("problems: [", ["file.yaml:1: "]),
        ("a: 1\nb:\n  c: 1\n  c: 2", ["file.yaml:4: ", "'c' is there twice"]),
        ("problems: !!python/name:os.system", ["file.yaml:1: ", "tag", "not allowed"]),
        ("problems: &x [*x]", ["file.yaml:1: ", "contains itself"]),
        ("", ["file.yaml: ", "a mapping with `problems`"]),
        ("- 1", ["file.yaml: ", "a mapping with `problems`", "list"]),
    ],
)
def test_refusals_of_the_text(text, words):
    message = refusal(text)
    assert all(word in message for word in words), message


def test_overrides_replace_and_add():
    loaded = read(
        TEXT,
        "problems.policy.optimizer.lr=1e-3",
        "problems.policy.optimizer.momentum=0.9",
        "problems.policy.config.type={name: cg, iterations: 3}",
        "problems.lower.config.unroll_steps=5",
        "problems.lower.data.1.size=[1, two]",
        "engine.seed=4",
    )
    policy, lower = (loaded.experiment.problems[name] for name in ("policy", "lower"))
    assert policy.optimizer.kwargs == {"lr": 1e-3, "momentum": 0.9}
    assert policy.config.method == CG(iterations=3)
    assert lower.config.unroll_steps == 5
    assert lower.data[1].kwargs == {"size": [1, "two"]}
    assert loaded.experiment.engine.seed == 4


def test_null_takes_a_part_away_and_the_last_override_wins():
    problems = read(TEXT, "problems.policy.optimizer=null").experiment.problems
    assert problems["policy"].optimizer is None
    assert read(TEXT, "engine.seed=1", "engine.seed=2").experiment.engine.seed == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("engine.train_iters", ["expected key.path=value"]),
        ("=3", ["expected key.path=value"]),
        ("engine.seed=[1", ["override 'engine.seed=[1'", "expected"]),
        ("engin.seed=1", ["no section is named 'engin'", "did you mean 'engine'"]),
        ("engine.sed=1", ["override 'engine.sed=1': engine.sed: ", "did you mean 'seed'"]),
        ("engine.train_iters=abc", ["override 'engine.train_iters=abc': engine.train_iters: ", "a whole number"]),
        ("problems.polcy.optimizer.lr=1", ["no problem is named 'polcy'", "did you mean 'policy'"]),
        ("problems.policy.optimiser.lr=1", ["override 'problems.policy.optimiser.lr=1'", "did you mean 'optimizer'"]),
        ("problems.policy.config.type.name=cg", ["problems.policy.config.type is 'cg'", "a mapping"]),
        ("problems.policy.config.type=cgg", ["override 'problems", "problem 'policy'", "did you mean 'cg'"]),
        ("problems.lower.data.2.size=1", ["'2' is no position", "list of 2"]),
        ("problems.lower.data.x=1", ["'x' is no position"]),
    ],
)
def test_refusals_of_overrides(override, words):
    message = refusal(TEXT, override)
    assert all(word in message for word in words), message


def test_the_dumped_experiment_loads_as_the_same():
    experiment = read(TEXT, "problems.policy.config.cg_iterations=3").experiment
    again = read(dump(experiment)).experiment
    assert again.plain() == experiment.plain()
    assert again.problems["policy"].config.method == CG(iterations=3)


def test_scalars_follow_yaml_1_2():
    text = "[1e-3, .5, 2., -3, 012, on, no, 1:30, 2024-01-01, ~, true, .inf, '1e-3', 1_000]"
    assert parse(text, "t")[0] == [
        0.001, 0.5, 2.0, -3, 12, "on", "no", "1:30", "2024-01-01", None, True, float("inf"), "1e-3", "1_000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", ["1e-3", "on", "", "~", "null", "01", "true", 1e-3, 1e22, 1e-9, None, True, -4, [], {}]
)
def test_what_is_written_reads_back(value):
    assert parse(write({"key": value}), "t")[0] == {"key": value}


def test_anchors_and_merges_work():
    assert parse("a: &x {k: 1}\nb: {<<: *x, l: 2}\nc: *x", "t")[0] == {
        "a": {"k": 1},
        "b": {"k": 1, "l": 2},
        "c": {"k": 1},
    }
