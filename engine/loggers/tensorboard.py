"""Metrics of a run for TensorBoard."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metrics import scalars
from .base import Logger, Record
from .folder import ready
from .packages import require
from .settings import Hyperparameters, graph_text, hyperparameters

if TYPE_CHECKING:
    from ..engine import Engine


class TensorBoard(Logger):
    """Writes scalars ``<problem>/<metric>`` and ``validation/<metric>`` by engine step.

    The graph of the problems is under Text, the hyperparameters there and under HParams, where runs are compared. A run
    that goes on from a checkpoint hides what was written after it.

    Args:
        folder: Where the event files go.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        require("tensorboard", self.name)
        self.folder = folder
        self._writer: Any = None
        self._described = self._resumes = False

    def open(self, engine: Engine) -> None:
        self._writer = self._new_writer(purge_step=self._first_step(engine))
        if not self._described:
            self._describe(engine)
        self._writer.flush()
        self._described, self._resumes = True, False

    def write(self, record: Record) -> None:
        if self._writer is None:
            self._writer = self._new_writer()
        try:
            for metric, value in scalars(record.metrics).items():
                self._writer.add_scalar(f"{record.source}/{metric}", value, record.step)
            self._writer.flush()  # it writes in a thread: only now are its errors known
        except Exception:
            self._abandon()
            raise

    def close(self, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "described": self._described}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._described, self._resumes = state["described"], True

    def _first_step(self, engine: Engine) -> int | None:
        """From where on what is there is hidden; ``None`` adds to it.

        TensorBoard hides nothing at the first restart that it sees, so a new folder begins with one.
        """
        if self._resumes and self._described:  # the checkpoint may have a level of the step that is next
            return max(engine.step_count, self.last_step) + 1
        return 0 if self._resumes or not any(self.folder.glob("events.out.tfevents.*")) else None

    def _new_writer(self, purge_step: int | None = None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        ready(self.folder)
        return SummaryWriter(str(self.folder), purge_step=purge_step)

    def _abandon(self) -> None:
        """A writer whose thread has failed writes nothing more; the next record begins another file."""
        with suppress(Exception):
            self._writer.close()
        self._writer = None

    def _describe(self, engine: Engine) -> None:
        settings = hyperparameters(engine)
        self._writer.add_text("graph", f"```\n{graph_text(engine)}\n```", 0)
        self._writer.add_text("hyperparameters", _table(settings), 0)
        self._describe_session(settings)

    def _describe_session(self, settings: Hyperparameters) -> None:
        # Not add_hparams(), which makes a run of its own beside this one. Without the list of metrics that it writes,
        # TensorBoard offers every scalar of the run.
        from torch.utils.tensorboard.summary import hparams

        _, session_start, _ = hparams(settings, {})
        self._writer.file_writer.add_summary(session_start)


def _table(settings: Hyperparameters) -> str:
    """A table in Markdown."""
    rows = [f"| {key} | {str(value).replace('|', '&#124;')} |" for key, value in settings.items()]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])
