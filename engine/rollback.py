"""Taking an inner loop again: after an upper's step, the problems below return to where they were before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..hypergrad.replay import RandomState
from ..problems.inner_loop import InnerLoop
from ..problems.level_state import cloned, load_training_state, training_state
from ..problems.moment import Moment
from ..problems.moment_state import moment_from_state, moment_state
from ..problems.problem import Problem
from .graph import Graph
from .schedule import start_inner_loop

Train = Callable[[str, Moment], bool]
"""Trains a problem on a moment, and says whether its optimizer stepped."""


@dataclass(frozen=True)
class Taken:
    """One level step of a problem below.

    Attributes:
        name: The problem.
        moment: Its batch, and the random numbers of its training step.
        before: Where it began an inner loop: the random numbers before that.
    """

    name: str
    moment: Moment
    before: RandomState | None


@dataclass(frozen=True)
class Place:
    """Where one problem was.

    Attributes:
        training: Everything that a step moves.
        moment: Its last batch.
        loop: Its recorded inner loop.
    """

    training: dict[str, Any]
    moment: Moment | None
    loop: InnerLoop | None


@dataclass
class Past:
    """What happened below an upper since it last stepped.

    Attributes:
        places: Where the problems below were then.
        inner: What had happened below each upper among them.
        taken: The level steps since then.
    """

    places: Mapping[str, Place]
    inner: Mapping[str, Past]
    taken: list[Taken] = field(default_factory=list)

    def copy(self) -> Past:
        """The same past, to which this one's future does not belong."""
        return Past(self.places, {name: past.copy() for name, past in self.inner.items()}, list(self.taken))


class RollBack:
    """Remembers, for every upper, what happened below it, and makes it happen again.

    The same batches and the same random numbers are used, and whatever was stepped below is stepped again, middle
    levels with their own roll-backs included; only the upper's parameters differ.

    Args:
        graph: The hierarchy.
        problems: The problems by name.
        train: Takes one level step, without drawing a batch.
    """

    def __init__(self, graph: Graph, problems: Mapping[str, Problem], train: Train) -> None:
        self._problems = problems
        self._train = train
        self._below = {name: [m for m in graph.order if m in graph.below(name)] for name in graph.order}
        self._constrained = {name: graph.constrained_by(name) for name in graph.order}
        self._uppers = [name for name in graph.order if self._below[name]]
        self._noting = tuple(self._uppers)
        self._past: dict[str, Past] = {}

    def begin(self) -> None:
        """Remember from here on, unless that has begun."""
        for upper in self._uppers:
            if upper not in self._past:
                self._past[upper] = self._now(upper)

    def warmed_up(self, name: str) -> None:
        """A problem's warm-up is over: it is not part of the inner loop that is taken again."""
        for upper in self._uppers:
            if name in self._below[upper]:
                self._past[upper] = self._now(upper)

    def random_before(self, starts: bool) -> RandomState | None:
        """The random numbers before an inner loop starts, for :meth:`took`."""
        return RandomState(self._device(), host=True) if starts else None

    def took(self, name: str, moment: Moment, before: RandomState | None) -> None:
        """A problem took a level step."""
        for upper in self._noting:
            if name in self._below[upper]:
                self._past[upper].taken.append(Taken(name, moment, before))

    def stepped(self, upper: str) -> None:
        """A problem's optimizer stepped: what happened below it happens again."""
        if not self._below[upper]:
            return
        past = self._past[upper]
        self._past.update({name: inner.copy() for name, inner in past.inner.items()})
        now = RandomState(self._device(), host=True)
        with self._noting_only(self._below[upper]):
            for name in self._below[upper]:
                self._return(name, past.places[name])
            for step in past.taken:
                self._take_again(step)
        now.restore()
        for name in self._constrained[upper]:
            loop = self._problems[name].level.loop
            if loop is not None:
                loop.over = True  # it was taken with the upper as it is now: nothing to look back from
        self._past[upper] = self._now(upper)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, as data.

        Raises:
            PackingError: A batch cannot be written.
        """
        return {upper: _past_state(past) for upper, past in self._past.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._past = {upper: self._past_from(kept) for upper, kept in state.items()}

    def _take_again(self, step: Taken) -> None:
        if step.before is not None:
            step.before.restore()
            start_inner_loop(self._problems[step.name])
        step.moment.random.restore()
        self._problems[step.name].level.moment = step.moment
        stepped = self._train(step.name, step.moment)
        self.took(step.name, step.moment, step.before)
        if stepped:
            self.stepped(step.name)

    def _now(self, upper: str) -> Past:
        below = self._below[upper]
        places = {}
        for name in below:
            level = self._problems[name].level
            loop = level.loop.frozen() if level.loop is not None else None
            places[name] = Place(cloned(training_state(self._problems[name])), level.moment, loop)
        return Past(places, {name: self._past[name].copy() for name in below if name in self._past})

    def _return(self, name: str, place: Place) -> None:
        problem = self._problems[name]
        load_training_state(problem, place.training)
        problem.level.moment = place.moment
        if problem.level.loop is not None and place.loop is not None:
            problem.level.loop.become(place.loop)

    @contextmanager
    def _noting_only(self, names: list[str]) -> Iterator[None]:
        """What is taken again below an upper is no news to it, nor to those above it."""
        before, self._noting = self._noting, tuple(name for name in self._uppers if name in names)
        try:
            yield
        finally:
            self._noting = before

    def _device(self) -> torch.device:
        return next(iter(self._problems.values())).device

    def _past_from(self, state: dict[str, Any]) -> Past:
        places = {name: self._place_from(name, kept) for name, kept in state["places"].items()}
        taken = [
            Taken(
                step["name"],
                moment_from_state(step["moment"], self._problems[step["name"]].level),
                RandomState.from_state_dict(step["before"], self._device()) if step["before"] is not None else None,
            )
            for step in state["taken"]
        ]
        return Past(places, {name: self._past_from(kept) for name, kept in state["inner"].items()}, taken)

    def _place_from(self, name: str, state: dict[str, Any]) -> Place:
        level = self._problems[name].level
        moment = moment_from_state(state["moment"], level) if state["moment"] is not None else None
        loop = level.loop_from_state(state["loop"]) if state["loop"] is not None else None
        return Place(state["training"], moment, loop)


def _past_state(past: Past) -> dict[str, Any]:
    return {
        "places": {name: _place_state(place) for name, place in past.places.items()},
        "inner": {name: _past_state(inner) for name, inner in past.inner.items()},
        "taken": [
            {
                "name": step.name,
                "moment": moment_state(step.moment),
                "before": step.before.state_dict() if step.before is not None else None,
            }
            for step in past.taken
        ],
    }


def _place_state(place: Place) -> dict[str, Any]:
    loop = place.loop.state_dict() if place.loop is not None else None
    return {"training": place.training, "moment": moment_state(place.moment), "loop": loop}
