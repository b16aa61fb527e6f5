"""Rows from what is solved and how: everyone's implementation of it, by name."""

from __future__ import annotations

from functools import partial

from . import library, peers
from .agreement import STEPS
from .approaches import Approach
from .bilevel import Bilevel
from .bilevel_loop import BilevelLoop, UnrolledLoop
from .case import HAND, Builder, Row
from .levels import Levels

FLOAT32 = 1e-2
"""Distance between trajectories that rounding may leave: a difference over a hundredth keeps two digits of float32."""


def bilevel_row(workload: str, bilevel: Bilevel, approach: Approach, *, error: bool = False) -> Row:
    """Two levels.

    Args:
        workload: Its short name.
        bilevel: What is solved.
        approach: How.
        error: Whether the exact hypergradient is cheap: the lower is small, or its Hessian well conditioned.
    """
    engine = library.bilevel_engine(bilevel, approach.method)
    runs = {
        HAND: _by_hand(bilevel, approach),
        **library.both(engine, bilevel.setting),
        **peers.bilevel(bilevel, approach.method),
    }
    measured = partial(library.relative_error, engine, bilevel.setting, STEPS)
    cheap = error and not bilevel.setting.large
    return Row(workload, approach.label, runs, None if bilevel.reduced else FLOAT32, measured if cheap else None)


def _by_hand(bilevel: Bilevel, approach: Approach) -> Builder:
    if approach.by_hand is None:
        return partial(UnrolledLoop, bilevel)
    return partial(BilevelLoop, bilevel, approach.by_hand)


def levels_row(workload: str, label: str, levels: Levels, by_hand: Builder, *, error: bool = True) -> Row:
    """Any number of levels, by darts."""
    engine = library.levels_engine(levels)
    runs = {HAND: by_hand, **library.both(engine, levels.setting), **peers.levels(levels)}
    measured = partial(library.relative_error, engine, levels.setting, STEPS)
    return Row(workload, label, runs, FLOAT32, measured if error else None)
