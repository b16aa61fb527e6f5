"""Ctrl-C and SIGTERM: the level step that is running is finished first, so that what is saved is whole."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was told to stop and did so between two level steps.

    Args:
        number: The signal.

    Attributes:
        signal: The signal.
        exit_code: What a process that it ended should return: 130 or 143.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number
        self.exit_code = 128 + number


class Interruption:
    """Notes the first signal while its block runs; a second Ctrl-C ends the program where it stands.

    Signals that the program handles by itself are left to it, as are all where this is not the main thread.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}
        self._process = 0

    def check(self) -> None:
        """Stop here if a signal came.

        Raises:
            Interrupted: One did.
        """
        if self._noted is not None:
            raise Interrupted(self._noted)

    def __enter__(self) -> Interruption:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) in (self._note, self._lose_worker):  # else another was installed since
                signal.signal(number, handler)
        self._before, self._noted = {}, None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._in_another_process(number)
            return
        if self._noted is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._noted is None:
            self._quieten_workers()
        self._noted = number
        # Not print(): the signal may have come in the middle of one.
        with suppress(OSError):  # nobody may be reading
            os.write(2, b"\nfinishing the current level step; Ctrl-C again stops at once, without saving\n")

    def _in_another_process(self, number: int) -> None:
        """In a process that was forked while the block ran: a DataLoader's worker, a pool's.

        Ctrl-C reaches it too, and the level step that is being finished may need it.
        """
        if number == signal.SIGTERM:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)

    def _quieten_workers(self) -> None:
        """A SIGTERM to all processes ends a DataLoader's workers, which torch raises wherever the program then is."""
        number = getattr(signal, "SIGCHLD", None)  # Windows has none
        if number is not None and callable(handler := signal.getsignal(number)):
            self._before[number] = handler
            signal.signal(number, self._lose_worker)

    def _lose_worker(self, number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):
            self._before[number](number, frame)
