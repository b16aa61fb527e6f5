"""Counting the derivatives that a computation takes, for audits and cost tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Tally:
    """How much work a hypergradient took.

    Attributes:
        evaluations: Evaluations of an objective.
        gradients: First-order backward passes.
        hessian_products: Products with a Hessian.
        mixed_products: Products with a mixed derivative, by autograd.
    """

    evaluations: int = 0
    gradients: int = 0
    hessian_products: int = 0
    mixed_products: int = 0


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def tallied() -> Iterator[Tally]:
    """Count what happens inside."""
    tally = Tally()
    with counting_for(tally):
        yield tally


def running_tally() -> Tally | None:
    """What is counted for here; ``None`` where nobody counts."""
    return _tally.get()


@contextmanager
def counting_for(tally: Tally | None) -> Iterator[None]:
    """Count what happens inside for a tally that may be another thread's.

    Autograd goes back through what a GPU computed in a thread of its own, which knows nothing of who counts.
    """
    token = _tally.set(tally)
    try:
        yield
    finally:
        _tally.reset(token)


def count(kind: str) -> None:
    """Note one unit of work; nothing happens where nobody counts."""
    tally = _tally.get()
    if tally is not None:
        setattr(tally, kind, getattr(tally, kind) + 1)
