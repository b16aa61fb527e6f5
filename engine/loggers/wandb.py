"""Metrics of a run for Weights & Biases, online or offline."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metrics import scalars
from .base import Logger, Record
from .folder import ready
from .packages import require
from .settings import hyperparameters

if TYPE_CHECKING:
    from ..engine import Engine


class Wandb(Logger):
    """Logs scalars ``<problem>/<metric>`` and ``validation/<metric>`` by engine step, with the hyperparameters.

    A run that goes on from a checkpoint goes on under its id; ``wandb sync --append`` joins the parts of one that was
    offline.

    Args:
        folder: Where W&B makes its folder ``wandb``.
        project: The project.
        entity: The user or team; W&B's own default where there is none.
        run_name: What the run is called; the folder's name by default.
        mode: ``"online"`` or ``"offline"``; by default what ``WANDB_MODE`` says, else online.

    Raises:
        ConfigError: wandb is not installed.
    """

    name = "wandb"

    def __init__(
        self,
        folder: Path,
        *,
        project: str = "multilevel",
        entity: str | None = None,
        run_name: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__()
        require("wandb", self.name)
        self.folder = folder
        self._options: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}
        self._run_name = run_name if run_name is not None else folder.resolve().name
        self._id = secrets.token_hex(4)  # ours, since the first checkpoint is written before W&B would give one
        self._run: Any = None

    def open(self, engine: Engine) -> None:
        import wandb

        ready(self.folder)  # W&B itself would go on in a temporary folder
        self._run = wandb.init(
            **self._options,
            name=self._run_name,
            dir=str(self.folder),
            id=self._id,
            resume="allow",
            reinit="create_new",  # a run of the user's own, or of another engine, is left alone
            config=hyperparameters(engine),
        )
        # W&B counts its own steps, one a call, and never backwards: ours are a metric that the others are drawn over.
        self._run.define_metric("*", step_metric="step")

    def write(self, record: Record) -> None:
        values = {f"{record.source}/{metric}": value for metric, value in scalars(record.metrics).items()}
        self._run.log({**values, "step": record.step})

    def close(self, error: BaseException | None) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._id = state["id"]
