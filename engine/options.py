"""The arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Which = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment's name, or a YAML file.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  typer reads it at run time
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="As in problems.classifier.optimizer.lr=0.05"),
]
Allow = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--allow-import", metavar="PACKAGE", help="A package that the file may import. May be repeated."),
]
Seeds = Annotated[Optional[int], typer.Option(min=1, help="Repeat with so many seeds.")]  # noqa: UP045
RunDir = Annotated[Optional[Path], typer.Option(help="Where to write; runs/NAME-TIME by default.")]  # noqa: UP045
Resume = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="auto", help="Go on with the run in the folder, or the newest unfinished one, if any."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Jobs = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--jobs", "-j", min=1, help="How many runs at a time; 1 by default."),
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", metavar="FILE", help="Where to; into the folder by default."),
]
