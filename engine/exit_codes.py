"""From what a command raises to a message and an exit code.

0 done, 1 failed while running, 2 bad input, 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what a command raises into a message and an exit code."""
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
