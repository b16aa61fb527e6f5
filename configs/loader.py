"""From a file, or the name of a shipped one, to a checked :class:`Experiment` whose errors know their file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

from yaml.nodes import Node

from ..hypergrad.errors import ConfigError, GraphError, choices
from .overrides import Override, apply_overrides, parse_override
from .schema import Experiment
from .validation import Fault, Path, SettingsError, dotted
from .yaml_text import lines_along, parse, write

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """Where an experiment came from: what its error messages start with."""

    path: FilePath
    node: Node | None = None
    overrides: tuple[Override, ...] = ()

    @contextmanager
    def located(self) -> Iterator[None]:
        """Turn a refusal raised inside into one that names the file, the line (or the override) and the key."""
        try:
            yield
        except SettingsError as error:
            raise ConfigError("\n".join(self._sentence(fault) for fault in error.faults)) from error.__cause__
        except GraphError as error:
            raise GraphError(f"{self.path.name}: {error}") from error

    def _sentence(self, fault: Fault) -> str:
        place = self._place(fault.path)
        owner = f"problem '{fault.path[1]}': " if fault.path[:1] == ("problems",) and len(fault.path) > 1 else ""
        return f"{place}: {dotted(fault.path)}: {owner}{fault.message.removeprefix(owner)}"

    def _place(self, path: Path) -> str:
        lines = lines_along(self.node, path)
        for override in reversed(self.overrides):  # the last one of a key is the one whose value was used
            if override.covers(path) or (override.passes(path) and len(lines) < len(path)):
                return str(override)
        return f"{self.path.name}:{lines[-1]}" if lines else self.path.name


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment and its source."""

    experiment: Experiment
    source: Source

    @property
    def folder(self) -> FilePath:
        """Where the files beside the YAML are."""
        return self.source.path.resolve().parent


def load(which: str | FilePath, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Read, override and check an experiment.

    Args:
        which: The name of a shipped experiment, or the path of a YAML file.
        overrides: ``key.path=value`` each.

    Raises:
        ConfigError: Nothing of that name, not YAML, or not an experiment; the message names the file and the key.
    """
    path = find(which)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text: {error}") from error
    return loads(text, path, overrides)


def loads(text: str, path: FilePath, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Like :func:`load`, from the text that a file at ``path`` has or would have."""
    raw, node = parse(text, path.name)
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise ConfigError(f"{path.name}: expected a mapping with `problems`, got {type(raw).__name__}")
    changes = tuple(parse_override(override) for override in overrides)
    apply_overrides(raw, changes)
    source = Source(path, node, changes)
    with source.located():
        _refuse_other_keys(raw)
        experiment = Experiment(**{"name": path.stem, **raw})
    return LoadedExperiment(experiment, source)


def dump(experiment: Experiment) -> str:
    """The YAML of an experiment with every default written out."""
    return write(experiment.plain())


def find(which: str | FilePath) -> FilePath:
    """The path of a shipped experiment, or of a file.

    Raises:
        ConfigError: There is neither.
    """
    known = shipped()
    if str(which) in known:
        return known[str(which)]
    path = FilePath(which)
    if path.is_file():
        return path
    if path.suffix in SUFFIXES:
        raise ConfigError(f"no file {path} (looked from {FilePath.cwd()})")
    raise ConfigError(
        f"no experiment is named '{which}'{choices(str(which), known, 'shipped')}; or give the path of a YAML file"
    )


def shipped() -> dict[str, FilePath]:
    """The experiments that come with the library, by name."""
    folder = FilePath(str(files(__package__) / "experiments"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _refuse_other_keys(value: Any, *path: str | int) -> None:
    """Keys become keyword arguments, so each must be a text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise SettingsError("settings", Fault(path, f"expected keys that are texts, got {key!r}; quote it"))
            _refuse_other_keys(inner, *path, key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_other_keys(inner, *path, i)
