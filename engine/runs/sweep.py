"""From ``problems.a.optimizer.lr=0.1,0.01`` and a number of seeds to the runs that this means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ...configs.loader import LoadedExperiment, load
from ...configs.overrides import parse_override
from ...configs.validation import dotted
from ...hypergrad.errors import ConfigError, GraphError
from .dry import check
from .plan import Member, Plan, short_keys, shown
from .run import Terms

OPENING, CLOSING, QUOTES = "[{", "]}", "\"'"
LONGEST = 40
"""Characters of a value that a folder's name has."""
SEED = "engine.seed"


@dataclass(frozen=True)
class Asked:
    """What a command asks for.

    Args:
        which: A shipped experiment's name, or the path of a YAML file.
        overrides: ``key.path=value`` each; in a sweep, several values with commas between them.
        seeds: Repeat each setting with so many seeds, counted upward from ``engine.seed`` (0 where there is none).
        jobs: How many run at a time; ``None`` is one.
        metric: The metric that the table shows and is sorted by; ``None`` shows all.
    """

    which: str
    overrides: tuple[str, ...] = ()
    seeds: int | None = None
    jobs: int | None = None
    metric: str | None = None


def plan_seeds(asked: Asked, terms: Terms) -> tuple[Plan, list[LoadedExperiment]]:
    """The runs of one setting with several seeds.

    Raises:
        ConfigError: The experiment is wrong in some way.
        GraphError: Its edges are.
    """
    return _plan(asked, [()], asked.overrides, terms)


def plan_sweep(asked: Asked, terms: Terms) -> tuple[Plan, list[LoadedExperiment]]:
    """The runs of every combination of the values that are given.

    Raises:
        ConfigError: No override has several values, or one does not fit.
        GraphError: The edges are wrong.
    """
    fixed, axes = [], []
    for text in asked.overrides:
        values = list(split_values(text))
        if len(values) > 1:
            axes.append(values)
        else:
            fixed.append(text)
    _refuse_twice([text for axis in [fixed, *axes] for text in axis[:1]] if axes else fixed)
    if not axes:
        raise ConfigError(
            "sweep: no setting has several values; put commas between them, as in problems.classifier.optimizer.lr=0.1,"
            "0.01 (to repeat one setting: multilevel run --seeds)"
        )
    return _plan(asked, list(product(*axes)), fixed, terms)


def split_values(override: str) -> Iterator[str]:
    """``key=a,b`` as ``key=a`` and ``key=b``. Commas in brackets, braces and quotes are part of a value.

    Raises:
        ConfigError: A value is missing, or is there twice.
    """
    key, equals, values = override.partition("=")
    found = [part.strip() for part in _parts(values)]
    if len(found) > 1 and not all(found):
        raise ConfigError(f"override '{override}': a value is missing beside a comma")
    if len(set(found)) < len(found):
        raise ConfigError(f"override '{override}': a value is there twice")
    yield from (f"{key}{equals}{value}" for value in found)


def _parts(values: str) -> Iterator[str]:
    begin, depth, quote, before = 0, 0, "", ""
    for i, sign in enumerate(values):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in QUOTES and (not before or before in f"{OPENING},:"):  # elsewhere it is an apostrophe
            quote = sign
        elif sign in OPENING:
            depth += 1
        elif sign in CLOSING:
            depth -= 1
        elif sign == "," and depth <= 0:
            yield values[begin:i]
            begin = i + 1
        before = sign if not sign.isspace() else before
    yield values[begin:]


def _plan(
    asked: Asked, settings: Sequence[tuple[str, ...]], fixed: Sequence[str], terms: Terms
) -> tuple[Plan, list[LoadedExperiment]]:
    runs: list[tuple[dict[str, Any], int | None, LoadedExperiment]] = []
    for setting in settings:
        varied = {dotted(o.path): o.value for o in map(parse_override, setting)}
        with _naming(varied):
            loaded = load(asked.which, [*fixed, *setting])
            check(loaded, terms.allow)
        if asked.seeds is None:
            runs.append((varied, None, loaded))
            continue
        if SEED in varied:
            raise ConfigError(
                f"sweep: {SEED} has several values, and --seeds counts seeds as well; give one of the two"
            )
        first = loaded.experiment.engine.seed or 0
        for seed in range(first, first + asked.seeds):
            runs.append((varied, seed, load(asked.which, [*fixed, *setting, f"{SEED}={seed}"])))
    names = _Names()
    members = tuple(Member(names.folder(varied, seed), varied, seed) for varied, seed, _ in runs)
    experiment = runs[0][2].experiment.name
    return Plan(experiment, members, asked.jobs or 1, asked.metric), [loaded for *_, loaded in runs]


@contextmanager
def _naming(setting: dict[str, Any]) -> Iterator[None]:
    """Say of a refusal which of the settings it is about."""
    try:
        yield
    except (ConfigError, GraphError) as error:
        if not setting:
            raise
        kind = GraphError if isinstance(error, GraphError) else ConfigError
        raise kind(f"{error} (with {Member('', setting).label})") from error


class _Names:
    """Names folders after settings: ``lr=0.1,momentum=0.9/seed0``."""

    def __init__(self) -> None:
        self._settings: dict[str, dict[str, Any]] = {}

    def folder(self, settings: dict[str, Any], seed: int | None) -> str:
        words = [f"{key}={_safe(shown(settings[full]))}" for full, key in short_keys(settings).items()]
        name = first = ",".join(words)
        number = 2
        while self._settings.setdefault(name, settings) != settings:  # cut to the same
            name, number = f"{first}-{number}", number + 1
        return str(Path(name, *([f"seed{seed}"] if seed is not None else [])))


def _safe(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", value).strip("_")[:LONGEST]


def _refuse_twice(overrides: Sequence[str]) -> None:
    seen: set[str] = set()
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key in seen:
            raise ConfigError(f"override '{text}': {key} is given twice")
        seen.add(key)
