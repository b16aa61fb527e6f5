"""Looking back at a problem's inner loop: its objective as it was, while the problems around it have moved on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.objective import Objective
from ..hypergrad.tensors import Tensors
from ..problems.level import ProblemLevel
from ..problems.moment import Moment


def past_objective(
    hierarchy: Hierarchy, levels: Mapping[str, ProblemLevel], name: str, uppers: Sequence[str]
) -> Callable[[Sequence[str]], Objective]:
    """The objective of a problem at its current moment, to be asked for later, given the names of its inputs.

    Copies the solutions of the problems that will have moved by then. Its uppers will not: an inner loop ends when one
    of them steps.
    """
    moving = [m for m in (*hierarchy.inputs[name], *hierarchy.inside[name]) if m not in uppers]
    values: dict[str, Tensors] = {m: tuple(p.detach().clone() for p in levels[m].parameters) for m in moving}
    objectives: dict[str, Callable[[Sequence[str]], Objective]] = {}
    for member in hierarchy.inside[name]:
        moment = _kept(levels[member], values, objectives)
        objectives[member] = partial(hierarchy.past_objective, member, moment=moment)
    return partial(hierarchy.past_step, name, moment=_kept(levels[name], values, objectives))


def _kept(
    level: ProblemLevel, values: Mapping[str, Tensors], objectives: Mapping[str, Callable[[Sequence[str]], Objective]]
) -> Moment:
    now = level.moment or level.next_moment()
    return Moment(now.batch, now.random, values, objectives, level.loop.frozen() if level.loop is not None else None)
