"""Metrics of a run for MLflow, in a database of the run's own or on a server."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metrics import scalars
from .base import Logger, Record
from .folder import ready
from .packages import require
from .settings import graph_text, hyperparameters

if TYPE_CHECKING:
    from ..engine import Engine

TAG = "multilevel.run"
"""What a resumed run finds its MLflow run by."""
NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in names."""
LONGEST = 6000
"""Characters that MLflow accepts in a parameter's value."""


class MLflow(Logger):
    """Logs metrics ``<problem>/<metric>`` and ``validation/<metric>`` by engine step, and the hyperparameters.

    A run that goes on from a checkpoint goes on in its MLflow run, and writes no point twice.

    Args:
        folder: Where the database ``mlflow.db`` is made (``mlflow ui --backend-store-uri sqlite:///.../mlflow.db``).
        experiment: The experiment, made where it does not exist.
        run_name: What the run is called; the folder's name by default.
        tracking_uri: A server, or another database, in place of the folder's.

    Raises:
        ConfigError: mlflow is not installed.
    """

    name = "mlflow"

    def __init__(
        self,
        folder: Path,
        *,
        experiment: str = "multilevel",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__()
        require("mlflow", self.name)
        self.folder = folder
        self._experiment = experiment
        self._run_name = run_name if run_name is not None else folder.resolve().name
        self._tracking_uri = tracking_uri
        self._client: Any = None
        self._token = secrets.token_hex(8)
        self._id: str | None = None
        self._known: set[tuple[str, int, str]] = set()

    def open(self, engine: Engine) -> None:
        with _quietly():
            self._client = self._connect()
            experiment = self._experiment_id()
            # By a name of ours, since the first checkpoint is written before MLflow gives its own.
            found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{self._token}'")
            self._id = self._take_up(found[0]) if found else self._create_run(engine, experiment)

    def write(self, record: Record) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        values = {NOT_ALLOWED.sub("_", key): value for key, value in scalars(record.metrics).items()}
        points = [Metric(f"{record.source}/{key}", value, now, record.step) for key, value in values.items()]
        self._client.log_batch(self._id, [point for point in points if _point(point) not in self._known])

    def close(self, error: BaseException | None) -> None:
        if self._client is not None and self._id is not None:
            status = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
            self._client.set_terminated(self._id, status)
        self._client = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "token": self._token}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._token = state["token"]

    def _connect(self) -> Any:
        from mlflow import MlflowClient

        if self._tracking_uri is not None:
            return MlflowClient(tracking_uri=self._tracking_uri)
        ready(self.folder)
        database = self.folder.resolve() / "mlflow.db"
        if not database.exists():
            # MLflow makes its tables in many steps and cannot go on from between them: a kill must leave all or none.
            beside = database.with_name(f".mlflow.{os.getpid()}.db")
            beside.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{beside}")
            beside.replace(database)
        return MlflowClient(tracking_uri=f"sqlite:///{database}")

    def _take_up(self, run: Any) -> str:
        run_id: str = run.info.run_id
        self._client.update_run(run_id, status="RUNNING")
        histories = [self._client.get_metric_history(run_id, key) for key in run.data.metrics]
        self._known = {_point(metric) for history in histories for metric in history}
        return run_id

    def _create_run(self, engine: Engine, experiment: str) -> str:
        from mlflow.entities import Param

        tags = {TAG: self._token, "mlflow.note.content": f"```\n{graph_text(engine)}\n```"}  # the page starts with it
        run_id: str = self._client.create_run(experiment, run_name=self._run_name, tags=tags).info.run_id
        settings = {NOT_ALLOWED.sub("_", key): str(value)[:LONGEST] for key, value in hyperparameters(engine).items()}
        params = [Param(key, value) for key, value in settings.items()]
        for start in range(0, len(params), 100):  # the most that one batch may have
            self._client.log_batch(run_id, params=params[start : start + 100])
        return run_id

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # MLflow's own default is a folder where the process happens to be.
        files = None if self._tracking_uri is not None else (self.folder / "mlartifacts").resolve().as_uri()
        return str(self._client.create_experiment(self._experiment, artifact_location=files))


def _point(metric: Any) -> tuple[str, int, str]:
    return metric.key, metric.step, repr(metric.value)  # as a text, NaN equals itself


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what MLflow says about its tables and its packages' deprecations, which is not the user's affair."""
    log = logging.getLogger("mlflow")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
