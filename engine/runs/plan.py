"""What a folder of many runs holds: which settings and seeds, each in which folder, and what came out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...hypergrad.errors import ConfigError
from .folder import MANY, RunFolder


@dataclass(frozen=True)
class Member:
    """One of many runs.

    Args:
        folder: Its folder, from that of all of them.
        settings: What distinguishes it, by dotted key.
        seed: Its seed, where it is run with several.
    """

    folder: str
    settings: dict[str, Any]
    seed: int | None = None

    @property
    def label(self) -> str:
        """Settings and seed on one line."""
        words = [f"{key}={shown(self.settings[full])}" for full, key in short_keys(self.settings).items()]
        return ", ".join([*words, *([f"seed {self.seed}"] if self.seed is not None else [])])


@dataclass(frozen=True)
class Plan:
    """Many runs of one experiment.

    Args:
        experiment: Its name.
        members: The runs.
        jobs: How many run at a time.
        metric: The metric that the table shows and is sorted by; ``None`` shows all.
    """

    experiment: str
    members: tuple[Member, ...]
    jobs: int = 1
    metric: str | None = None

    @property
    def keys(self) -> dict[str, str]:
        """What is varied, by dotted key, and what tables call it."""
        return short_keys(self.members[0].settings)


Status = Literal["finished", "failed", "unfinished"]


@dataclass(frozen=True)
class Outcome:
    """How one of many runs stands.

    Attributes:
        member: Which one.
        status: What became of it.
        report: The final metrics of a finished run.
        error: The last line of the traceback of a failed one.
    """

    member: Member
    status: Status
    report: dict[str, float]
    error: str | None


def outcome(base: Path, member: Member) -> Outcome:
    """Look into a run's folder."""
    folder = RunFolder(base / member.folder)
    if folder.error is not None:  # one that finished may have failed when it was to go on
        return Outcome(member, "failed", {}, folder.error)
    return (
        Outcome(member, "finished", folder.report, None) if folder.finished else Outcome(member, "unfinished", {}, None)
    )


def read_plan(base: Path) -> Plan:
    """Read the plan of a folder of many runs.

    Raises:
        ConfigError: It is not one that this library wrote.
    """
    path = base / MANY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        members = tuple(Member(run["folder"], run["settings"], run["seed"]) for run in found["runs"])
        return Plan(found["experiment"], members, found["jobs"], found["metric"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not the record of many runs ({type(error).__name__}: {error})") from error


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The least of each dotted key's end that tells it from the others."""
    found = list(keys)
    alone = {key: [end for end in _ends(key) if sum(_ends_in(other, end) for other in found) == 1] for key in found}
    return {key: [*ends, key][0] for key, ends in alone.items()}


def shown(value: Any) -> str:
    """A setting's value for people, as they would write it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def select(outcomes: Iterable[Outcome], status: Status) -> list[Outcome]:
    """Those that stand so."""
    return [found for found in outcomes if found.status == status]


def _ends(key: str) -> Iterator[str]:
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[-count:])


def _ends_in(key: str, end: str) -> bool:
    return f".{key}".endswith(f".{end}")
