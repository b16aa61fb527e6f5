"""What MLflow's own client reads back."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from multilevel.engine.loggers.mlflow import MLflow
from multilevel.hypergrad.errors import ConfigError

from .fakes import fake_engine, killed_and_resumed, run

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs of these tests; making one takes MLflow a second."""
    folder = tmp_path_factory.mktemp("tables")
    run(engine(), MLflow(folder, experiment="tables"), until=0)
    return folder / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, tables: Path) -> Path:
    """A run folder whose tables are there already."""
    shutil.copy(tables, tmp_path)
    return tmp_path


def engine() -> Any:
    return fake_engine(lower=-1, upper=7)


def runs(folder: Path, experiment: str = "multilevel") -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return client, list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def points(client: Any, found: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, metric)]


def test_a_run_has_every_metric_by_engine_step_the_hyperparameters_and_the_graph(tmp_path, capfd):
    run(engine(), MLflow(tmp_path / "run", experiment="digits", run_name="first"))
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    client, (found,) = runs(tmp_path / "run", "digits")
    assert points(client, found, "lower/loss") == [(10, 2.5), (20, 5.0), (25, 6.25)]
    assert points(client, found, "upper/loss") == [(7, 1.75), (14, 3.5), (21, 5.25), (25, 6.25)]
    assert points(client, found, "validation/accuracy") == [(step, step / 32) for step in (5, 10, 15, 20, 25)]
    assert found.data.params["lower.optimizer.lr"] == "0.25"
    assert found.data.params["engine.train_iters"] == "25"
    assert "⇅ lower" in found.data.tags["mlflow.note.content"]
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert logging.getLogger("mlflow").level != logging.WARNING


@pytest.mark.parametrize("saved", [0, 13])
def test_a_run_that_goes_on_from_a_checkpoint_goes_on_in_its_run_without_a_point_twice(folder, saved):
    killed_and_resumed(lambda: MLflow(folder), engine, saved, 23)
    client, (found,) = runs(folder)
    assert points(client, found, "lower/loss") == [(10, 2.5), (20, 5.0), (25, 6.25)]
    assert points(client, found, "upper/loss") == [(7, 1.75), (14, 3.5), (21, 5.25), (25, 6.25)]
    assert found.info.status == "FINISHED"


def test_one_whose_database_is_gone_begins_another_run(folder):
    folders = iter([folder, shutil.copytree(folder, folder / "moved")])
    killed_and_resumed(lambda: MLflow(next(folders)), engine, 13, 18)
    client, (found,) = runs(folder / "moved")
    assert points(client, found, "lower/loss") == [(20, 5.0), (25, 6.25)]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_the_status_says_how_the_run_ended_and_any_metric_can_be_written(folder, error, status):
    logger, running = MLflow(folder), engine()
    logger.on_run_start(running)
    logger.on_validation(running, {"accuracy (top 5, %)": 0.5, "diverged": float("nan")})
    logger.on_exception(running, error)
    client, (found,) = runs(folder)
    assert found.info.status == status
    assert points(client, found, "validation/accuracy _top 5_ __") == [(0, 0.5)]
    assert "validation/diverged" in found.data.metrics
    assert found.info.run_name == folder.name


def test_another_database_may_be_named(folder):
    run(engine(), MLflow(folder / "unused", tracking_uri=f"sqlite:///{folder / 'mlflow.db'}"), until=1)
    assert len(runs(folder)[1]) == 1
    assert not (folder / "unused").exists()


def test_a_folder_that_is_a_file_is_said_before_training(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"logger 'mlflow': cannot start: .*taken"):
        MLflow(tmp_path / "taken").on_run_start(engine())
