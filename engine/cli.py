"""The command line. Nothing heavy is imported before a command runs, so that ``--help`` answers at once.

Exit codes: 0 done, 1 failed while running, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional, TextIO

import typer

from .._version import __version__

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="multilevel",
    help="Multilevel optimization: run experiments that a YAML file describes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Which = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment's name, or a YAML file.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  typer reads it at run time
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="As in problems.classifier.optimizer.lr=0.05"),
]
Allow = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--allow-import", metavar="PACKAGE", help="A package that the file may import. May be repeated."),
]


@app.command()
def run(
    experiment: Which,
    overrides: Overrides = None,
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Repeat with so many seeds.")] = None,  # noqa: UP045
    run_dir: Annotated[Optional[Path], typer.Option(help="Where to write; runs/NAME-TIME by default.")] = None,  # noqa: UP045
    allow_import: Allow = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train, and print the final metrics."""
    with _exit_codes():
        from .runs import run_experiment

        run_experiment(
            experiment, overrides or (), seeds=seeds, run_dir=run_dir, allow=allow_import or (), quiet=quiet,
            say=typer.echo,
        )  # fmt: skip


@app.command()
def check(experiment: Which, overrides: Overrides = None, allow_import: Allow = None) -> None:
    """Build everything and train nothing: print the graph, each level's method, pace and size."""
    with _exit_codes():
        from ..configs.loader import load
        from .build import build
        from .summary import summarize

        loaded = load(experiment, overrides or ())
        typer.echo(summarize(build(loaded, allow=allow_import or ())))


@app.command()
def graph(
    experiment: Which,
    overrides: Overrides = None,
    form: Annotated[str, typer.Option("--format", metavar="text|mermaid")] = "text",
    png: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Draw it into a picture as well.")] = None,  # noqa: UP045
) -> None:
    """Print the graph of an experiment, or draw it."""
    with _exit_codes():
        from ..configs.loader import load
        from ..hypergrad.errors import ConfigError, choices
        from . import drawing
        from .summary import graph_of

        forms = {"text": drawing.text, "mermaid": drawing.mermaid}
        if form not in forms:
            raise ConfigError(f"--format: unknown '{form}'{choices(form, forms)}")
        loaded = load(experiment, overrides or ())
        configs = {name: section.config for name, section in loaded.experiment.problems.items()}
        found = graph_of(loaded)
        typer.echo(forms[form](found, configs))
        if png is not None:
            from .picture import save_picture

            save_picture(found, configs, png)
            typer.echo(f"\nwrote {png}", err=True)


@app.command()
def audit(
    experiment: Which,
    overrides: Overrides = None,
    method: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="Audit this method; may be repeated. Default: every method."),
    ] = None,
    upper: Annotated[Optional[str], typer.Option(help="The problem whose hypergradient; default: the top.")] = None,  # noqa: UP045
    steps: Annotated[int, typer.Option(min=0, help="Engine steps to train before.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    png: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Draw error against time.")] = None,  # noqa: UP045
    allow_import: Allow = None,
) -> None:
    """Train a little, then compare every method's hypergradient with the truth."""
    with _exit_codes():
        from ..configs.loader import load
        from .audit.run import audit_experiment

        found = audit_experiment(load(experiment, overrides or ()), upper, method, steps, allow_import or ())
        typer.echo(found.to_json() if as_json else found.to_text())
        if png is not None:
            from .audit.picture import save_audit_picture

            save_audit_picture(found, png)
            typer.echo(f"\nwrote {png}", err=True)


@app.command("list")
def list_() -> None:
    """Name the shipped experiments and the methods."""
    with _exit_codes():
        import sys

        from ..configs.loader import load, shipped
        from ..hypergrad.registry import available

        typer.echo("experiments")
        for name in shipped():
            typer.echo(f"  {name:20}  {load(name).experiment.description}".rstrip())
        typer.echo("\nmethods")
        for name, cls in available().items():
            about = sys.modules[cls.__module__].__doc__ or cls.__doc__ or ""
            typer.echo(f"  {name:20}  {about.strip().partition(chr(10))[0]}".rstrip())


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    with _exit_codes():
        import json

        from ..configs.schema import experiment_schema

        typer.echo(json.dumps(experiment_schema(), indent=2))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Multilevel optimization: run experiments that a YAML file describes."""


@contextmanager
def _exit_codes() -> Iterator[None]:
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
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"{category.__name__}: {message}", err=True)
