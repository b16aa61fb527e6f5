"""A logger that keeps what it is given."""

from __future__ import annotations

from multilevel import Engine
from multilevel.engine.loggers import Logger, Record


class Written(Logger):
    """Keeps every record that a logger would write."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def open(self, engine: Engine) -> None:
        pass

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self, error: BaseException | None) -> None:
        pass

    def of(self, problem: str, metric: str) -> list[float]:
        return [float(r.metrics[metric]) for r in self.records if r.problem == problem]
