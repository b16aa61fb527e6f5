"""From what a command raises to a message and an exit code.

0 done, 1 failed while running, 2 bad input, 130 interrupted by Ctrl-C, 143 by SIGTERM.

Output that nobody reads any more, or a log on a full disk, ends no work. Where the output is all that a command is for,
it has failed without it.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from .streams import lasting_streams

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@contextmanager
def exit_codes(*, works: bool = False) -> Iterator[None]:
    """Turn what a command raises into a message and an exit code.

    Args:
        works: Whether it does more than print: that it did it is what its exit code tells then.
    """
    with lasting_streams() as output:
        with _raised():
            yield
        if output is not None and output.error is not None:
            _unsaid(output.error, works=works)


def _unsaid(error: OSError, *, works: bool) -> None:
    """What there is to say where standard output could not be written; of a reader who left, nothing."""
    if error.errno != errno.EPIPE:
        typer.echo(f"standard output cannot be written ({error.strerror or error}); some of it is lost", err=True)
    if not works:
        raise typer.Exit(FAILED)


@contextmanager
def _raised() -> Iterator[None]:
    try:
        from ..hypergrad.errors import ConfigError, GraphError, MultilevelError

        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            yield
    except (ConfigError, GraphError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except MultilevelError as error:
        typer.echo(f"failed: {error}", err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt as stop:
        typer.echo(str(stop) or "interrupted", err=True)
        raise typer.Exit(getattr(stop, "exit_code", INTERRUPTED)) from None


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"{category.__name__}: {message}", err=True)
