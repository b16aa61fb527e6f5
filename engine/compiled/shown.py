"""Saying that something is compiled: nothing else happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...problems.processes import is_first_process
from ..streams import standard_error


@contextmanager
def show(what: str, operations: int) -> Iterator[None]:
    """Tell on standard error what is compiled, and how long it took."""
    begun = time.perf_counter()
    _write(f"compiling {what} ({operations} operations)")
    yield
    _write(f"compiled {what} in {time.perf_counter() - begun:.1f} s")


def _write(line: str) -> None:
    if is_first_process():
        from tqdm import tqdm

        tqdm.write(line, file=standard_error())  # above a bar that may be there
