"""From settings to loggers, several at once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from multilevel.configs.logger_choice import LOGGERS, logger_settings
from multilevel.engine.loggers import build_loggers, packages
from multilevel.hypergrad.errors import ConfigError

from .fakes import fake_engine, run


def test_every_choice_builds_the_logger_of_its_name(tmp_path):
    loggers = build_loggers(logger_settings(list(LOGGERS)), tmp_path)
    assert [logger.name for logger in loggers] == list(LOGGERS)
    assert list(tmp_path.iterdir()) == []  # nothing is written before a run starts


def test_several_write_at_once_into_the_run_folder(tmp_path, capsys):
    choices = logger_settings(["jsonl", "csv", "console", "tensorboard"])
    run(fake_engine(lower=-1), *build_loggers(choices, tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"metrics.jsonl", "metrics.csv", "tensorboard"}
    assert "step 25  lower  loss 6.25" in capsys.readouterr().err


def test_options_reach_the_logger(tmp_path):
    wandb, mlflow = build_loggers(
        logger_settings([{"name": "wandb", "project": "p", "mode": "offline"}, {"name": "mlflow", "experiment": "e"}]),
        tmp_path,
    )
    assert vars(wandb)["_options"] == {"project": "p", "entity": None, "mode": "offline"}
    assert vars(mlflow)["_experiment"] == "e"


@pytest.mark.parametrize("name", [name for name in LOGGERS if name != "console"])
def test_what_writes_files_needs_a_folder(name):
    with pytest.raises(ConfigError, match=rf"logger '{name}': needs a folder .*EngineConfig\(run_dir=...\)"):
        build_loggers(logger_settings([name]), None)


def test_the_others_need_none():
    choices = logger_settings(["console", {"name": "mlflow", "tracking_uri": "http://localhost:5000"}])
    assert len(build_loggers(choices, None)) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_said_when_the_engine_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"logger '{name}': needs {name}; .*pip install 'multilevel\[{name}\]'"):
        build_loggers(logger_settings([name]), tmp_path)


def test_a_folder_of_its_name_is_no_package(tmp_path, monkeypatch):
    """W&B writes a folder ``wandb`` where a run started; Python takes it for a package without files."""
    (tmp_path / "surely_not_installed").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("surely_not_installed") is not None
    with pytest.raises(ConfigError, match="needs surely_not_installed"):
        packages.require("surely_not_installed", "x")


def test_building_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from multilevel.engine.loggers import build_loggers\n"
        "from multilevel.configs.logger_choice import LOGGERS, logger_settings\n"
        "build_loggers(logger_settings(list(LOGGERS)), Path('x'))\n"
        "print(sorted({'tensorboard', 'wandb', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
