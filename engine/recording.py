"""Looking back at a problem's inner loop: its objective as it was, while the problems around it have moved on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.tensors import Tensors
from ..problems.inner_loop import InnerLoop
from ..problems.level import ProblemLevel
from ..problems.moment import Moment


def record(hierarchy: Hierarchy, levels: Mapping[str, ProblemLevel], name: str, uppers: Sequence[str]) -> None:
    """Note what it takes to look back at a problem's current moment, where its method does."""
    loop = levels[name].loop
    if loop is not None:
        if loop.over:
            loop.begin()
        loop.add_batch(recorded_moment(hierarchy, levels, name, uppers))


@contextmanager
def ending_loops(level: ProblemLevel, loops: Iterable[InnerLoop]) -> Iterator[None]:
    """A problem may move inside, which ends the recorded inner loops of lowers that it constrains."""
    steps = level.update.steps
    before = tuple(p.detach().clone() for p in level.parameters)
    yield
    if level.update.steps > steps:
        for loop in loops:
            loop.leave(level.name, before)


def recorded_moment(
    hierarchy: Hierarchy, levels: Mapping[str, ProblemLevel], name: str, uppers: Sequence[str]
) -> Moment:
    """The current moment of a problem, with all it takes to look back at its objective later.

    Copies the solutions of the problems that will have moved by then. Its uppers will not: an inner loop ends when one
    of them steps.
    """
    moving = [m for m in (*hierarchy.inputs[name], *hierarchy.inside[name]) if m not in uppers]
    values: dict[str, Tensors] = {m: tuple(p.detach().clone() for p in levels[m].parameters) for m in moving}
    kept: dict[str, Moment] = {}

    def keep(member: str, loop: InnerLoop | None) -> Moment:
        if member not in kept:
            now = levels[member].moment or levels[member].next_moment()
            inside = {m: keep(m, _frozen(levels[m].loop)) for m in hierarchy.inside[member]}
            buffers = levels[member].training_step.buffers.copies()
            kept[member] = now._replace(values=values, members=inside, loop=loop, buffers=buffers)
        return kept[member]

    # Without its own loop so far: each step would hold all those before it, and each of them theirs.
    return keep(name, None)


def _frozen(loop: InnerLoop | None) -> InnerLoop | None:
    return loop.frozen() if loop is not None else None
