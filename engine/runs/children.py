"""Commands in processes of their own, some at a time, which no crash of one can take along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL = 0.05
"""Seconds between two looks at the children."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True)
class Task:
    """A command of this library to run.

    Args:
        arguments: What stands behind ``multilevel``.
        output: The file that its standard output and error are added to.
    """

    arguments: tuple[str, ...]
    output: Path


@dataclass(frozen=True)
class Ended:
    """A task that has ended.

    Attributes:
        number: Which one.
        code: Its exit code; minus the number of the signal that killed it.
        seconds: How long it ran.
        output: What it printed.
    """

    number: int
    code: int
    seconds: float
    output: str


class Children:
    """Runs tasks, and stops them when this process is told to stop: they finish their level step and save.

    Args:
        jobs: How many at a time.

    Attributes:
        stopped_by: The number of the signal that stopped them.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.stopped_by: int | None = None
        self._running: dict[int, tuple[subprocess.Popen[bytes], float, int]] = {}

    def run(self, tasks: Sequence[Task], on_wait: Callable[[], object]) -> Iterator[Ended]:
        """Run the tasks in order and yield each when it has ended. After a signal no further one is started.

        Args:
            tasks: The tasks.
            on_wait: Called again and again meanwhile.
        """
        waiting = list(enumerate(tasks))
        with self._listening():
            try:
                while self._running or (waiting and self.stopped_by is None):
                    while waiting and len(self._running) < self.jobs and self.stopped_by is None:
                        number, task = waiting.pop(0)
                        self._start(number, task)
                    time.sleep(POLL)
                    on_wait()
                    for number in [n for n, (process, *_) in self._running.items() if process.poll() is not None]:
                        yield self._end(number, tasks[number])
            finally:
                for process, *_ in self._running.values():  # only where something went wrong here
                    process.terminate()

    def _start(self, number: int, task: Task) -> None:
        with task.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _program(), *task.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self.jobs),
                start_new_session=True,  # a Ctrl-C of the terminal is for this process, which passes it on once
            )
            self._running[number] = (process, time.monotonic(), output.tell())
        if self.stopped_by is not None:  # told so while it was being started
            process.terminate()

    def _end(self, number: int, task: Task) -> Ended:
        process, began, position = self._running.pop(number)
        with task.output.open("rb") as file:
            file.seek(position)
            output = file.read().decode(errors="replace")
        return Ended(number, process.returncode, time.monotonic() - began, output)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Pass signals on to the children while the block runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        for process, *_ in self._running.values():
            if self.stopped_by is None:
                process.terminate()
            else:  # asked a second time: whoever does not want to wait gives up what is not saved
                process.kill()
        if self.stopped_by is None:
            # Not print(): the signal may have come in the middle of one.
            with suppress(OSError):  # nobody may be reading
                os.write(2, b"\nstopping the runs; they save first (a second time: kills them)\n")
        self.stopped_by = number


def _program() -> str:
    """What runs the command line with the modules that this process sees, from wherever it was started.

    ``python -m multilevel`` would put the current folder first, where a ``code.py`` may lie.
    """
    return f"import sys; sys.path[:] = {sys.path!r}; from multilevel.__main__ import main; main()"


def environment(jobs: int) -> dict[str, str]:
    """Share the cores out, unless somebody has already."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bound = {"OMP_NUM_THREADS": str(max(1, cores // jobs))} if jobs > 1 else {}
    return {**bound, **os.environ}
