"""Other libraries, each of which is imported only when it is to run something.

Nothing here is needed to run the rest: what is not installed, or does not offer a method, says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from multilevel import Method

from ..bilevel import Bilevel
from ..case import Builder, Run, UnavailableError
from ..levels import Levels

PEERS: Mapping[str, str] = {
    "betty-ml": "betty",
    "torchopt": "torchopt",
    "higher": "higher",
    "boat-torch": "boat",
    "hypergrad": "hypergrad",
    "jaxopt": "jaxopt",
}
"""By the name on the package index, the module in this folder."""

UNCOUNTED = frozenset({"hypergrad", "jaxopt"})
"""Those that differentiate in forward mode, or outside torch: counts of backward passes would say nothing."""

UNSEEN = frozenset({"jaxopt"})
"""Those whose memory is not torch's."""


def bilevel(problem: Bilevel, method: Method) -> dict[str, Builder]:
    """Builders of two levels."""
    return {peer: partial(_built, peer, lambda module: module.bilevel_run(problem, method)) for peer in PEERS}


def levels(problem: Levels) -> dict[str, Builder]:
    """Builders of more levels."""
    return {peer: partial(_built, peer, partial(_levels_run, problem)) for peer in PEERS}


def versions() -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            continue
    return found


def _built(peer: str, build: Callable[[Any], Run]) -> Run:
    if peer not in versions():
        raise UnavailableError("not installed")
    return build(import_module(f".{PEERS[peer]}", __name__))


def _levels_run(problem: Levels, module: Any) -> Run:
    if not hasattr(module, "levels_run"):
        raise UnavailableError("takes two levels")
    return module.levels_run(problem)
