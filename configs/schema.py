"""What one experiment file says, as models: the engine, the problems with their parts, and the edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, Strict, field_validator, model_serializer

from ..hypergrad.errors import choices
from .config import Config
from .engine_config import EngineConfig
from .validation import Path, Settings, refuse, under

Edge = Annotated[tuple[str, str], Strict(False)]


class Component(Settings):
    """Something to construct: ``class``, and its keyword arguments beside it.

    Args:
        class_: ``class:`` in the file. A dotted name, or ``file.py:Name`` for a file beside the YAML.
        args: Positional arguments, for the classes that take any number of them (``torch.nn.Sequential``).
    """

    model_config = ConfigDict(extra="allow")

    class_: str = Field(alias="class", min_length=1)
    args: list[Any] = Field(default_factory=list)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments. A mapping with ``class`` inside them is a component as well."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _write(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _unless_default(default(self), args=[])


class ProblemSection(Settings):
    """One problem: its class, its parts, and how it is trained. A part left out comes from its ``configure_*``.

    Args:
        class_: ``class:`` in the file, a subclass of ``Problem``.
        module: The module; ``optimizer`` is given its parameters, and ``scheduler`` the optimizer.
        optimizer: Any optimizer of ``torch.optim``.
        scheduler: Any scheduler of ``torch.optim.lr_scheduler``.
        data: What yields the batches; a list of several yields tuples of batches.
        validation_data: What yields the batches of its ``validation_step``.
        config: The settings of :class:`Config`.
        options: Keyword arguments of the class's own ``__init__``, beside those of ``Problem``.
    """

    class_: str = Field(alias="class", min_length=1)
    module: Component | None = None
    optimizer: Component | None = None
    scheduler: Component | None = None
    data: Component | list[Component] | None = None
    validation_data: Component | None = None
    config: Config = Config()
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [_component(item, i) for i, item in enumerate(value)]
        return value if value is None else _component(value)

    @model_serializer(mode="wrap")
    def _write(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        parts = dict.fromkeys(("module", "optimizer", "scheduler", "data", "validation_data"))
        return _unless_default(default(self), options={}, **parts)


class EngineSection(EngineConfig):
    """The settings of :class:`EngineConfig`, and which engine has them.

    Args:
        class_: ``class:`` in the file, ``Engine`` or a subclass with a ``validation`` of its own.
        callbacks: What watches the run, in order: subclasses of ``Callback``.
        options: Keyword arguments of the subclass's own ``__init__``, beside those of ``Engine``.
    """

    class_: str = Field(default="multilevel.Engine", alias="class", min_length=1)
    callbacks: list[Component] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("callbacks", mode="before")
    @classmethod
    def _components(cls, value: Any) -> Any:
        return [_component(item, i) for i, item in enumerate(value)] if isinstance(value, list) else value

    @property
    def config(self) -> EngineConfig:
        """The settings alone."""
        return EngineConfig(**{name: getattr(self, name) for name in EngineConfig.model_fields})

    @model_serializer(mode="wrap")
    def _write(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {name: None for name, field in EngineConfig.model_fields.items() if field.default is None}
        return _unless_default(default(self), callbacks=[], options={}, **absent)


class Dependencies(Settings):
    """Edges by direction.

    Args:
        u2l: ``{upper: [lowers]}``: the upper's parameters enter the lowers' losses.
        l2u: ``{lower: [uppers]}``: the lower's solution enters the uppers' losses.
    """

    u2l: dict[str, list[str]] = Field(default_factory=dict)
    l2u: dict[str, list[str]] = Field(default_factory=dict)


class Experiment(Settings):
    """One experiment.

    Args:
        name: Names the run folder; the file's name by default.
        description: One line for ``multilevel list``.
        engine: How long and where.
        problems: The problems by name.
        edges: Pairs [upper, lower], each joined in both directions.
        dependencies: The edges by direction, where some go only one way; instead of ``edges``.
    """

    name: str = ""
    description: str = ""
    engine: EngineSection = EngineSection()
    problems: dict[str, ProblemSection]
    edges: list[Edge] | None = None
    dependencies: Dependencies | None = None

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        if "/" in value or "\\" in value or value.startswith("."):
            raise refuse(f"expected a name for the run folder, without slashes or a dot in front, got {value!r}")
        return value

    @field_validator("edges", mode="before")
    @classmethod
    def _pairs_of_names(cls, value: Any) -> Any:
        for i, pair in enumerate(value if isinstance(value, list) else ()):
            if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
                raise refuse(f"expected a pair of names [upper, lower], got {pair!r}", i)
        return value

    def model_post_init(self, context: Any) -> None:
        """Check that every name on an edge is a problem."""
        if not self.problems:
            raise refuse("there is no problem; give at least one, by its name", "problems")
        if self.edges is not None and self.dependencies is not None:
            raise refuse("`dependencies` is there as well; keep one of the two", "edges")
        for path, name in self._names_on_edges():
            if name not in self.problems:
                raise refuse(f"no problem is named '{name}'{choices(name, self.problems, 'problems')}", *path)

    def plain(self) -> dict[str, Any]:
        """Every setting as plain data; loading it again gives the same experiment."""
        return _unless_default(self.model_dump(by_alias=True), name="", description="", edges=None, dependencies=None)

    def _names_on_edges(self) -> Iterator[tuple[Path, str]]:
        for i, edge in enumerate(self.edges or ()):
            yield from ((("edges", i), name) for name in edge)
        for direction in ("u2l", "l2u"):
            for name, others in getattr(self.dependencies, direction, {}).items():
                path: Path = ("dependencies", direction, name)
                yield path, name
                yield from (((*path, i), other) for i, other in enumerate(others))


def experiment_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file, for editors. Registered methods and their options are in it."""
    schema = Experiment.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _component(value: Any, *path: int) -> Component:
    with under(*path):
        if isinstance(value, Component):
            return value
        if not isinstance(value, Mapping):
            raise refuse(f"expected a mapping with `class`, got {value!r}")
        return Component(**value)


def _unless_default(written: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Leave out the keys that only say what would be so without them."""
    return {key: value for key, value in written.items() if key not in defaults or value != defaults[key]}
