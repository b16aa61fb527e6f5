"""The arguments and options that several commands have, and those that are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def path(text: str) -> Path:
    """A folder or a file that was named. An empty name would mean the current folder, which nobody asked for.

    Raises:
        typer.BadParameter: It is empty.
    """
    if not text:
        raise typer.BadParameter("expected a path, got an empty text; is a variable of the shell not set?")
    return Path(text)


def file(text: str) -> Path:
    """A file that is to be written.

    Raises:
        typer.BadParameter: It is empty, or a folder.
    """
    found = path(text)
    if found.is_dir():
        raise typer.BadParameter(f"expected a file, got the folder '{found}'; name a file in it")
    return found


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
RunDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(parser=path, metavar="RUN_DIR", help="Where to write; runs/NAME-TIME by default."),
]
Resume = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="auto", help="Go on with the run in the folder, or the newest unfinished one, if any."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Jobs = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--jobs", "-j", min=1, help="How many runs at a time; 1 by default."),
]
Folder = Annotated[Path, typer.Argument(parser=path, metavar="RUN_DIR", help="The folder of a run.")]
AnyFolder = Annotated[
    Path, typer.Argument(parser=path, metavar="RUN_DIR", help="The folder of a run, of --seeds or of a sweep.")
]
Folders = Annotated[
    list[Path], typer.Argument(parser=path, metavar="RUN_DIR", help="Of runs, of --seeds or of sweeps.")
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", parser=file, metavar="FILE", help="Where to; into the folder by default."),
]
Picture = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(parser=file, metavar="FILE", help="Draw it into a picture as well."),
]
AuditPicture = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(parser=file, metavar="FILE", help="Draw error against time."),
]
AuditFolder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(parser=path, metavar="RUN_DIR", help="Write audit.json into this folder as well."),
]
