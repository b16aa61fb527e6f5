"""The command line. Nothing heavy is imported before a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .._version import __version__
from . import options
from .exit_codes import exit_codes

if TYPE_CHECKING:
    from .runs.run import Terms

app = typer.Typer(
    name="multilevel",
    help="Multilevel optimization: run experiments that a YAML file describes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def run(
    experiment: options.Which,
    overrides: options.Overrides = None,
    seeds: options.Seeds = None,
    jobs: options.Jobs = None,
    run_dir: options.RunDir = None,
    resume: options.Resume = None,
    allow_import: options.Allow = None,
    quiet: options.Quiet = False,
) -> None:
    """Train, and print the final metrics."""
    with exit_codes(works=True):
        from .runs import commands
        from .runs.sweep import Asked

        asked = Asked(experiment, tuple(overrides or ()), seeds, jobs)
        commands.run(asked, run_dir, _terms(allow_import, quiet=quiet), resume=_is_auto(resume))


@app.command()
def resume(
    folder: options.AnyFolder,
    overrides: options.Overrides = None,
    jobs: options.Jobs = None,
    allow_import: options.Allow = None,
    quiet: options.Quiet = False,
) -> None:
    """Go on with a run from its newest checkpoint; engine.train_iters=N trains longer."""
    with exit_codes(works=True):
        from .runs import commands

        commands.resume(folder, overrides or (), jobs, _terms(allow_import, quiet=quiet))


@app.command()
def sweep(
    experiment: options.Which,
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="KEY.PATH=VALUE,VALUE...", help="As in problems.classifier.optimizer.lr=0.1,0.01"),
    ] = None,
    seeds: options.Seeds = None,
    jobs: options.Jobs = None,
    run_dir: options.RunDir = None,
    metric: Annotated[Optional[str], typer.Option(help="Show this metric only, and sort by it.")] = None,  # noqa: UP045
    resume: options.Resume = None,
    allow_import: options.Allow = None,
    quiet: options.Quiet = False,
) -> None:
    """Train with every combination of some settings, and compare the final metrics."""
    with exit_codes(works=True):
        from .runs import commands
        from .runs.sweep import Asked

        asked = Asked(experiment, tuple(overrides or ()), seeds, jobs, metric)
        commands.sweep(asked, run_dir, _terms(allow_import, quiet=quiet), resume=_is_auto(resume))


@app.command()
def check(experiment: options.Which, overrides: options.Overrides = None, allow_import: options.Allow = None) -> None:
    """Build everything and train nothing: print the graph, each level's method, pace and size."""
    with exit_codes():
        from ..configs.loader import load
        from .runs.dry import dry_build
        from .summary import summarize

        typer.echo(summarize(dry_build(load(experiment, overrides or ()), allow_import or ())))


@app.command()
def graph(
    experiment: options.Which,
    overrides: options.Overrides = None,
    form: Annotated[str, typer.Option("--format", metavar="text|mermaid")] = "text",
    png: options.Picture = None,
) -> None:
    """Print the graph of an experiment, or draw it."""
    with exit_codes():
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
    experiment: options.Which,
    overrides: options.Overrides = None,
    method: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="Audit this method; may be repeated. Default: every method."),
    ] = None,
    upper: Annotated[Optional[str], typer.Option(help="The problem whose hypergradient; default: the top.")] = None,  # noqa: UP045
    steps: Annotated[int, typer.Option(min=0, help="Engine steps to train before.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    png: options.AuditPicture = None,
    run_dir: options.AuditFolder = None,
    allow_import: options.Allow = None,
) -> None:
    """Train a little, then compare every method's hypergradient with the truth."""
    with exit_codes():
        from ..configs.loader import load
        from .audit.run import audit_experiment
        from .runs.dry import unwatched
        from .runs.folder import RunFolder

        loaded = unwatched(load(experiment, overrides or ()))
        found = audit_experiment(loaded, upper, method, steps, allow_import or ())
        typer.echo(found.to_json() if as_json else found.to_text())
        if run_dir is not None:
            RunFolder(run_dir).save_audit(found)
        if png is not None:
            from .audit.picture import save_audit_picture

            save_audit_picture(found, png)
            typer.echo(f"\nwrote {png}", err=True)


@app.command()
def plot(
    folders: options.Folders,
    output: options.Output = None,
    metric: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="Draw this metric only; may be repeated."),
    ] = None,
) -> None:
    """Draw loss and metrics of every level; several runs together."""
    with exit_codes(works=True):
        from .reporting import commands

        typer.echo(f"wrote {commands.plot(folders, output, metric or ())}")


@app.command()
def report(
    folder: options.Folder,
    output: options.Output = None,
) -> None:
    """Write one page about a run: result, graph, curves, timing, audit, settings."""
    with exit_codes(works=True):
        from .reporting import commands

        typer.echo(f"wrote {commands.report(folder, output)}")


@app.command("list")
def list_() -> None:
    """Name the shipped experiments and the methods."""
    with exit_codes():
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
    with exit_codes():
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


def _terms(allow: list[str] | None, *, quiet: bool) -> Terms:
    from .runs.run import Terms

    return Terms(allow=tuple(allow or ()), quiet=quiet, say=typer.echo)


def _is_auto(resume: str | None) -> bool:
    if resume not in (None, "auto"):
        from ..hypergrad.errors import ConfigError

        raise ConfigError(
            f"--resume: expected 'auto', got '{resume}'; a folder: multilevel resume {quote(str(resume))}"
        )
    return resume == "auto"
