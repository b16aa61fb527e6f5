"""Standard output and error, which may go away or be full while there is work to do."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Lasting(io.RawIOBase):
    """Passes on what is written to it, as long as that can be done; what cannot be passed on is lost.

    Each write is tried: a full disk may have room again.

    Args:
        target: What it passes on to. It stays open.

    Attributes:
        error: Why something was lost, the first time.
    """

    def __init__(self, target: io.RawIOBase) -> None:
        self._target = target
        self.error: OSError | None = None

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        try:
            return self._target.write(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()

    @property
    def name(self) -> object:
        """What the stream calls itself."""
        return getattr(self._target, "name", None)


class _Unfailing:
    """A text stream to which what cannot be written is lost; otherwise, and when it is compared, the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:  # tqdm clears the bars of the stream that it writes a line to
        return bool(self._stream == (other._stream if isinstance(other, _Unfailing) else other))

    def __hash__(self) -> int:
        return hash(self._stream)


def standard_error() -> TextIO:
    """Standard error as it is now, for what a run shows also without a command: a write to it never raises."""
    return cast(TextIO, _Unfailing(sys.stderr))


@contextmanager
def lasting_streams() -> Iterator[Lasting | None]:
    """Let no write to standard output or error raise while the block runs: what a command does is worth more.

    ``print``, progress bars, warnings and the user's own code are all covered, and so is what would be written when
    the process ends.

    Yields:
        What stands for standard output; ``None`` where that is no file, and cannot be full.
    """
    before = sys.stdout, sys.stderr
    found = [_lasting(stream) for stream in before]
    sys.stdout, sys.stderr = (text for text, _ in found)
    try:
        yield found[0][1]
    finally:
        sys.stdout, sys.stderr = before
        for text, raw in found:
            if raw is not None and not text.closed:
                text.flush()


def _lasting(stream: TextIO) -> tuple[TextIO, Lasting | None]:
    """One of the same encoding in a stream's place, and what lies under it; not where a program put its own there."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # python -u has no buffer
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
        return stream, None
    with suppress(OSError):
        stream.flush()  # what was said before comes first
    lasting = Lasting(raw)
    text = io.TextIOWrapper(
        lasting if raw is buffer else io.BufferedWriter(lasting),  # type: ignore[type-var]  # it need not read
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return text, lasting
