"""An experiment file becomes an engine; what does not fit is refused with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import multilevel
from multilevel import Callback
from multilevel.configs.loader import dump, load, loads
from multilevel.engine.build import build, seed_everything
from multilevel.engine.callbacks import EarlyStopping
from multilevel.engine.engine import Engine
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.errors import ConfigError, GraphError

from .toy import YAML, write_toy


def make(folder: Path, *overrides: str, yaml: str = YAML) -> Any:
    return build(load(write_toy(folder, yaml), overrides))


def refusal(folder: Path, *overrides: str, yaml: str = YAML, error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        make(folder, *overrides, yaml=yaml)
    return str(caught.value)


def test_every_part_of_the_file_is_in_the_engine(tmp_path):
    engine = make(
        tmp_path,
        "engine.options.goal=2.0",
        "problems.lower.options.weight=0.5",
        "problems.lower.scheduler={class: torch.optim.lr_scheduler.StepLR, step_size: 7}",
        "problems.lower.data={class: code.py:noise, count: 3}",
    )
    lower, upper = engine["lower"], engine["upper"]
    assert isinstance(engine, Engine)
    assert type(engine).__name__ == "Toy"
    assert engine.goal == 2.0
    assert engine.config.train_iters == 60
    assert upper.module.value.item() == 3
    assert upper.optimizer.param_groups[0]["lr"] == 0.1
    assert upper.optimizer.param_groups[0]["params"][0] is upper.module.value
    assert lower.config.method == CG()
    assert lower.config.unroll_steps == 2
    assert lower.weight == 0.5
    assert lower.scheduler.step_size == 7
    assert lower.scheduler.optimizer is lower.optimizer
    assert len(lower.train_data_loader) == 3
    assert engine.graph.lowers("upper") == ("lower",)


def test_it_runs_and_solves_the_problem(tmp_path):
    engine = make(tmp_path)
    engine.run()
    assert engine.last_validation["distance"] < 0.01


WATCH = """
from multilevel import Callback

class Counter(Callback):
    def __init__(self, by=1, table=None):
        if by < 1:
            raise ValueError("by must be at least 1")
        self.by, self.count, self.table = by, 0, table

    def on_step_end(self, engine):
        self.count += self.by

def counter():
    return Counter()

def number():
    return 7
"""


def test_callbacks_of_the_file_come_before_those_of_the_caller(tmp_path):
    (tmp_path / "watch.py").write_text(WATCH)
    callbacks = (
        "[{class: watch.py:Counter, by: 2, table: {class: torch.nn.Linear, in_features: 1, out_features: 1}}, "
        "{class: multilevel.engine.callbacks.EarlyStopping, metric: distance, patience: 1}, {class: watch.py:counter}]"
    )
    own = Callback()
    loaded = load(write_toy(tmp_path), [f"engine.callbacks={callbacks}"])
    engine = build(loaded, callbacks=[own])
    counter, stopping, plain, last = engine.callbacks.callbacks
    engine.run()
    assert (counter.count, plain.count) == (2 * engine.step_count, engine.step_count)
    assert isinstance(counter.table, nn.Linear)
    assert isinstance(stopping, EarlyStopping)
    assert stopping.best is not None
    assert last is own
    assert loads(dump(loaded.experiment), loaded.source.path).experiment.plain() == loaded.experiment.plain()


def test_without_callbacks_none_are_written_out(tmp_path):
    assert "callbacks" not in dump(load(write_toy(tmp_path)).experiment)


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ("[{class: code.py:Scalar}]", ["engine.callbacks.0.class: ", "not a subclass of multilevel.Callback"]),
        ("[{class: watch.py:Counter, bye: 1}]", ["engine.callbacks.0.bye: ", "did you mean 'by'"]),
        ("[{class: watch.py:Count}]", ["engine.callbacks.0.class: ", "did you mean 'Counter'"]),
        ("[{class: watch.py:Counter}, {class: watch.py:Counter, by: 0}]", ["engine.callbacks.1: ", "by must be at"]),
        ("[{class: watch.py:number}]", ["engine.callbacks.0.class: ", "returned int", "subclass of multilevel.Cal"]),
        ("[{class: multilevel.engine.callbacks.EarlyStop, metric: a}]", ["callbacks.0.class", "'EarlyStopping'"]),
        ("[{class: multilevel.engine.callbacks.EarlyStopping}]", ["engine.callbacks.0: ", "needs metric"]),
        (
            "[{class: multilevel.engine.callbacks.EarlyStopping, metric: a, patience: 0}]",
            ["engine.callbacks.0: ", "patience: expected at least 1"],
        ),
        ("[watch.py:Counter]", ["engine.callbacks.0: ", "expected a mapping with `class`"]),
        ("{class: watch.py:Counter}", ["engine.callbacks: ", "expected a list"]),
        ("[{class: os.system}]", ["engine.callbacks.0.class: ", "--allow-import os"]),
    ],
)
def test_callbacks_that_cannot_be_made_are_refused(tmp_path, callbacks, words):
    (tmp_path / "watch.py").write_text(WATCH)
    message = refusal(tmp_path, f"engine.callbacks={callbacks}")
    assert all(word in message for word in words), message


def test_several_loaders_become_a_tuple(tmp_path):
    data = "[{class: code.py:noise, count: 2}, {class: code.py:noise, count: 3}]"
    loaders = make(tmp_path, f"problems.lower.data={data}")["lower"].train_data_loader
    assert isinstance(loaders, tuple)
    assert [len(loader) for loader in loaders] == [2, 3]


def test_parts_that_are_left_out_come_from_the_class(tmp_path):
    overrides = ["problems.lower.class=code.py:Own", "problems.lower.module=null", "problems.lower.optimizer=null"]
    lower = make(tmp_path, *overrides)["lower"]
    assert isinstance(lower.module, nn.Module)
    assert lower.optimizer.param_groups[0]["lr"] == 0.5


def test_dependencies_by_direction(tmp_path):
    yaml = YAML.replace("edges:\n- [upper, lower]", "dependencies: {u2l: {upper: [lower]}, l2u: {lower: [upper]}}")
    assert make(tmp_path, yaml=yaml).graph.networkx.edges["upper", "lower"] == {
        "upper_to_lower": True,
        "lower_to_upper": True,
    }


def test_a_single_problem_needs_no_edges(tmp_path):
    yaml = """
engine: {train_iters: 5}
problems:
  fit:
    class: alone.py:Fit
    module: {class: torch.nn.Linear, in_features: 1, out_features: 1}
    optimizer: {class: torch.optim.SGD, lr: 0.1}
"""
    (tmp_path / "alone.py").write_text(
        "from multilevel import Problem\n"
        "class Fit(Problem):\n"
        "    def training_step(self, batch):\n"
        "        return (self.module.weight ** 2).sum()\n"
    )
    engine = make(tmp_path, yaml=yaml)
    engine.run()
    assert type(engine) is multilevel.Engine
    assert engine["fit"].count == 5


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
def test_a_seed_decides_everything_random(tmp_path, seeds):
    overrides = ["problems.lower.data={class: code.py:noise, count: 3, scale: 1.0}"]
    a, b = (torch.cat(make(tmp_path, *overrides, f"engine.seed={seed}")["lower"].train_data_loader) for seed in seeds)
    assert torch.equal(a, b) == (seeds[0] == seeds[1])


def test_without_a_seed_the_generators_are_left_alone():
    before = torch.get_rng_state()
    seed_everything(None)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["problems.lower.optimizer.lrr=1"],
            ["override 'problems.lower.optimizer.lrr=1': ", "problem 'lower'", "'lr'"],
        ),
        (["problems.lower.optimizer.lr=-1"], ["problems.lower.optimizer: ", "Invalid learning rate"]),
        (["problems.lower.optimizer.class=torch.optim.Sgd"], ["problems.lower.optimizer.class: ", "'SGD'"]),
        (["problems.lower.class=code.py:Lowr"], ["problems.lower.class: ", "did you mean 'Lower'"]),
        (["problems.lower.class=code.py:Scalar"], ["problems.lower.class: ", "not a subclass of multilevel.Problem"]),
        (["problems.lower.class=torch.nn.Linear"], ["problems.lower.class: ", "not a subclass of multilevel.Problem"]),
        (["problems.lower.module.class=code.py:Upper"], ["problems.lower.module.class: ", "torch.nn.Module"]),
        (["problems.lower.module.class=os.system"], ["problems.lower.module.class: ", "--allow-import os"]),
        (["problems.lower.module=null"], ["problems.lower.module: ", "no value, and the `optimizer`"]),
        (["problems.lower.optimizer=null"], ["engine: ", "problem 'lower'", "optimizer", "configure_optimizer"]),
        (
            ["problems.lower.optimizer=null", "problems.lower.scheduler={class: torch.optim.lr_scheduler.StepLR}"],
            ["problems.lower.optimizer: ", "no value, and the `scheduler`"],
        ),
        (["problems.lower.data=[{class: code.py:noise}]"], ["problems.lower.data.0: ", "needs count"]),
        (["problems.lower.options={wight: 2}"], ["problems.lower.options.wight: ", "did you mean 'weight'"]),
        (["problems.lower.options={module: 2}"], ["problems.lower.options.module: ", "beside `class`"]),
        (["engine.class=code.py:Lower"], ["engine.class: ", "multilevel.Engine"]),
        (["engine.options={config: 2}"], ["engine.options.config: ", "beside `class`"]),
    ],
)
def test_refusals_name_the_key(tmp_path, overrides, words):
    message = refusal(tmp_path, *overrides)
    assert all(word in message for word in words), message


def test_a_refusal_names_the_line_of_the_file(tmp_path):
    message = refusal(tmp_path, yaml=YAML.replace("lr: 0.5", "lrr: 0.5"))
    assert message.startswith("toy.yaml:11: problems.lower.optimizer.lrr: problem 'lower': torch.optim.SGD takes no ")


def test_a_graph_that_is_no_hierarchy_names_the_file(tmp_path):
    yaml = YAML.replace("- [upper, lower]", "- [upper, lower]\n- [lower, upper]")
    message = refusal(tmp_path, yaml=yaml, error=GraphError)
    assert message.startswith("toy.yaml: ")
    assert "cycle" in message


def test_allowed_packages_may_be_named(tmp_path):
    overrides = ["problems.lower.data={class: collections.UserList, initlist: [[1.0]]}"]
    path = write_toy(tmp_path)
    with pytest.raises(ConfigError, match="--allow-import collections"):
        build(load(path, overrides))
    assert list(build(load(path, overrides), allow=["collections"])["lower"].train_data_loader) == [[1.0]]
