"""From an experiment file to an engine that is ready to run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..configs.loader import LoadedExperiment, dump
from ..configs.schema import Component, EngineSection, Experiment, ProblemSection
from ..configs.validation import refuse, under
from ..problems.assembly import assemble_like
from ..problems.problem import Problem
from .callbacks import Callback
from .construct import ANYTHING, MODULE, OPTIMIZER, SCHEDULER, Constructor, Kind
from .engine import Engine
from .imports import Importer
from .seeding import seed_everything

PROBLEM = Kind("a subclass of multilevel.Problem", (Problem,))
ENGINE = Kind("multilevel.Engine or a subclass of it", (Engine,))
CALLBACK = Kind("a subclass of multilevel.Callback", (Callback,))


PARTS = ("module", "optimizer", "scheduler", "train_data_loader", "validation_data_loader", "config")
"""The constructor's arguments that have keys of their own in a file."""


def build(
    loaded: LoadedExperiment,
    *,
    allow: Iterable[str] = (),
    callbacks: Iterable[Callback] = (),
    run_dir: Path | None = None,
) -> Engine:
    """Construct everything that an experiment names.

    Args:
        loaded: The experiment and where it came from.
        allow: Packages that its names may come from, beside those that every file may use.
        callbacks: What watches the run, after what the experiment names.
        run_dir: Where the run writes, instead of what the experiment says.

    Raises:
        ConfigError: A part cannot be constructed; the message names the file, the line and the key.
        GraphError: The edges do not form a hierarchy.
    """
    experiment = loaded.experiment
    construct = Constructor(Importer(loaded.folder, tuple(allow)))
    seed_everything(experiment.engine.seed)
    with loaded.source.located():
        problems = [_problem(construct, name, section) for name, section in experiment.problems.items()]
        engine = _engine(construct, experiment, problems, list(callbacks), run_dir)
    engine.built_from = dump(experiment)
    return engine


def build_twin(loaded: LoadedExperiment, problem: Problem, allow: Iterable[str] = ()) -> Problem:
    """The problem that an experiment has in the place of another, around its module and its data.

    Args:
        loaded: The experiment, which has a problem of that name.
        problem: The other one, which an engine has taken up.
        allow: As for :func:`build`.

    Returns:
        A problem with an optimizer and a scheduler of its own, which is in no engine.

    Raises:
        ConfigError: It cannot be constructed.
    """
    section = loaded.experiment.problems[problem.name]
    construct = Constructor(Importer(loaded.folder, tuple(allow)))
    with loaded.source.located():
        twin = _problem(construct, problem.name, section, problem)
    assemble_like(twin, problem)
    return twin


def _problem(construct: Constructor, name: str, section: ProblemSection, like: Problem | None = None) -> Problem:
    with under("problems", name):
        cls = construct.find(section.class_, PROBLEM)
        parts = _parts(construct, section, like)
        options = _options(construct, section, {*parts, "name", *PARTS})
        problem: Problem = construct.call(section.class_, cls, [name], {**parts, "config": section.config}, options)
        return problem


def _parts(construct: Constructor, section: ProblemSection, like: Problem | None) -> dict[str, Any]:
    """The parts that the file gives, of which module and data may be those of another problem.

    The class's own ``configure_*`` provide the others.
    """
    parts: dict[str, Any] = {}
    if section.module is not None:
        with under("module"):
            parts["module"] = construct.build(section.module, MODULE) if like is None else like.module
    _refuse_empty(section, "module", "optimizer")
    _refuse_empty(section, "optimizer", "scheduler")
    if section.optimizer is not None:
        with under("optimizer"):
            if "module" not in parts:
                raise refuse(
                    "an optimizer needs a `module` beside it; where the class makes its own module, give it "
                    "a configure_optimizer() as well"
                )
            parts["optimizer"] = construct.build(section.optimizer, OPTIMIZER, parts["module"].parameters())
    if section.scheduler is not None:
        with under("scheduler"):
            if "optimizer" not in parts:
                raise refuse("a scheduler needs an `optimizer` beside it")
            parts["scheduler"] = construct.build(section.scheduler, SCHEDULER, parts["optimizer"])
    if section.data is not None:
        with under("data"):
            parts["train_data_loader"] = _data(construct, section.data) if like is None else like.train_data_loader
    if section.validation_data is not None:
        with under("validation_data"):
            parts["validation_data_loader"] = (
                construct.build(section.validation_data, ANYTHING) if like is None else like.validation_data_loader
            )
    return parts


def _refuse_empty(section: ProblemSection, key: str, user: str) -> None:
    if getattr(section, user) is not None and getattr(section, key) is None and key in section.model_fields_set:
        raise refuse(
            f"the key has no value, and the `{user}` beside it needs one; give it a class: {{class: ...}}", key
        )


def _data(construct: Constructor, data: Component | list[Component]) -> Any:
    if isinstance(data, Component):
        return construct.build(data, ANYTHING)
    return tuple(_each(construct, data, ANYTHING))


def _each(construct: Constructor, components: list[Component], kind: Kind) -> list[Any]:
    built = []
    for i, component in enumerate(components):
        with under(i):
            built.append(construct.build(component, kind))
    return built


def _options(construct: Constructor, section: ProblemSection | EngineSection, taken: Iterable[str]) -> dict[str, Any]:
    with under("options"):
        for key in section.options:
            if key in taken:
                raise refuse("give it beside `class`, not among the options", key)
        return construct.resolve_all(section.options)


def _engine(
    construct: Constructor,
    experiment: Experiment,
    problems: list[Problem],
    callbacks: list[Callback],
    run_dir: Path | None,
) -> Engine:
    section = experiment.engine
    config = section.config if run_dir is None else section.config.model_copy(update={"run_dir": str(run_dir)})
    edges: dict[str, Any] = {}
    if experiment.edges is not None:
        edges["edges"] = experiment.edges
    if experiment.dependencies is not None:
        edges["dependencies"] = experiment.dependencies.model_dump()
    with under("engine"):
        with under("callbacks"):
            own: list[Callback] = _each(construct, section.callbacks, CALLBACK)
        given = {**edges, "config": config, "callbacks": [*own, *callbacks]}
        cls = construct.find(section.class_, ENGINE)
        options = _options(construct, section, {*given, "problems"})
        engine: Engine = construct.call(section.class_, cls, [problems], given, options)
        return engine
