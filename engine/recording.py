"""Looking back at a problem's inner loop: its objective as it was, while the problems around it have moved on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.objective import Objective
from ..hypergrad.tensors import Tensors
from ..problems.inner_loop import InnerLoop, Past
from ..problems.level import ProblemLevel
from ..problems.moment import Moment


def record(hierarchy: Hierarchy, levels: Mapping[str, ProblemLevel], name: str, uppers: Sequence[str]) -> None:
    """Note what it takes to look back at a problem's current moment, where its method does."""
    loop = levels[name].loop
    if loop is not None:
        if loop.over:
            loop.begin()
        loop.add_batch(past_objective(hierarchy, levels, name, uppers))


@contextmanager
def ending_loops(levels: Mapping[str, ProblemLevel], name: str, lowers: Sequence[str]) -> Iterator[None]:
    """A problem may move inside, which ends the recorded inner loops of the lowers that it constrains."""
    loops = [loop for lower in lowers if (loop := levels[lower].loop) is not None]
    steps = levels[name].update.steps
    before = tuple(p.detach().clone() for p in levels[name].parameters) if loops else ()
    yield
    if levels[name].update.steps > steps:
        for loop in loops:
            loop.leave(name, before)


def past_objective(hierarchy: Hierarchy, levels: Mapping[str, ProblemLevel], name: str, uppers: Sequence[str]) -> Past:
    """The objective of a problem at its current moment, to be asked for later.

    Copies the solutions of the problems that will have moved by then. Its uppers will not: an inner loop ends when one
    of them steps.
    """
    moving = [m for m in (*hierarchy.inputs[name], *hierarchy.inside[name]) if m not in uppers]
    values: dict[str, Tensors] = {m: tuple(p.detach().clone() for p in levels[m].parameters) for m in moving}
    objectives: dict[str, Callable[[Sequence[str]], Objective]] = {}
    for member in hierarchy.inside[name]:
        loop = levels[member].loop
        moment = _kept(levels[member], values, objectives, loop.frozen() if loop is not None else None)
        objectives[member] = partial(hierarchy.past_objective, member, moment=moment)
    # Without its own loop so far: each step would hold all those before it, and each of them theirs.
    moment = _kept(levels[name], values, objectives, None)
    return lambda inputs, left: hierarchy.past_step(name, inputs, moment, left)


def _kept(
    level: ProblemLevel,
    values: Mapping[str, Tensors],
    objectives: Mapping[str, Callable[[Sequence[str]], Objective]],
    loop: InnerLoop | None,
) -> Moment:
    now = level.moment or level.next_moment()
    return Moment(now.batch, now.random, values, objectives, loop)
