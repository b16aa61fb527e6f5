"""The objectives of a hierarchy of levels, with responses inside responses, and the sweep that differentiates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from .errors import NonFiniteError, second_derivatives
from .linearization import Linearization
from .method import Method
from .objective import Evaluation, Objective
from .response import respond
from .tensors import Tensors, add, subtract

Values = Mapping[str, Tensors]


class Level(Protocol):
    """One level, as the hierarchy sees it."""

    @property
    def method(self) -> Method:
        """How its best response is differentiated."""

    @property
    def parameters(self) -> Tensors:
        """Its current solution."""

    def evaluate(self, values: Values, moment: Moment | None = None, *, draw: int = 0) -> Evaluation:
        """Its own loss with the given tensors in place of the parameters of the levels named; leaves no trace.

        What it samples is the same at every call with one ``draw``, and independent of that of another.
        """

    def describe(
        self, objective: Objective, inputs: Sequence[str], moment: Moment | None = None, *, method: Method
    ) -> Objective:
        """The objective, together with what a method may know besides (memory, optimizer, tape)."""


class Moment(Protocol):
    """A past evaluation of a level's loss: what the levels around it were then."""

    @property
    def values(self) -> Values:
        """Solutions of levels that have moved since."""

    @property
    def members(self) -> Mapping[str, Moment]:
        """The moments of the levels that responded inside."""


class Hierarchy:
    """Levels and who responds to whom.

    Args:
        levels: The levels by name.
        inside: Per level j, the others that respond inside its objective F_j, in the order in which they do.
        inputs: Per level, the others that its best response depends on.
        held: ``held[j][m]``: the inputs of m that stay fixed while it responds inside F_j.
        total: Let the levels inside respond. Otherwise an objective is the level's own loss, with its lowers fixed: a
            cheap approximation, wrong by any amount where a middle level constrains a lower one.
        methods: Methods to use instead of the levels' own, by name.
    """

    def __init__(
        self,
        levels: Mapping[str, Level],
        *,
        inside: Mapping[str, Sequence[str]],
        inputs: Mapping[str, Sequence[str]],
        held: Mapping[str, Mapping[str, frozenset[str]]],
        total: bool = True,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        self.levels = levels
        self.inside = inside
        self.inputs = inputs
        self.held = held
        self.total = total
        self._methods = dict(methods or {})

    def method(self, name: str) -> Method:
        """How the best response of a level is differentiated here."""
        return self._methods.get(name) or self.levels[name].method

    def objective(self, name: str, inputs: Sequence[str]) -> Objective:
        """F_name as a function of its own parameters and, one after another, those of ``inputs``."""

        return self._objective(name, inputs, None)

    def past_objective(self, name: str, inputs: Sequence[str], moment: Moment) -> Objective:
        """:meth:`objective` as it was at a past moment, for the levels that respond inside a recorded inner loop."""
        return self._objective(name, inputs, moment)

    def past_step(self, name: str, inputs: Sequence[str], moment: Moment, left: Values) -> Objective:
        """:meth:`past_objective` as a function of what ``inputs`` are *now*.

        An input that has moved since counts with its value of then; a derivative with respect to it, and a displacement
        of it, act on that value.

        Args:
            name: The level.
            inputs: The names of its inputs.
            moment: When.
            left: Values of then, of levels that have moved since the loop ended.
        """

        def function(solution: Tensors, flat: Tensors) -> Evaluation:
            before = {**moment.values, **left}
            return self.past_objective(name, inputs, moment)(solution, self.values_then(inputs, flat, before))

        return Objective(function)

    def values_then(self, inputs: Sequence[str], flat: Tensors, before: Values) -> Tensors:
        """Inputs given as of now, moved back to where they were."""
        then: list[Tensor] = []
        for name, tensors in self.split(inputs, flat).items():
            now = _detached(self.levels[name].parameters)
            then += add(before[name], subtract(tensors, now)) if name in before else tensors
        return tuple(then)

    def linearize(self, name: str, inputs: Sequence[str]) -> Linearization:
        """F_name around the current point."""
        return Linearization(self.objective(name, inputs), self.levels[name].parameters, self._flat(inputs))

    def sweep(self, name: str, cotangents: Mapping[str, Tensors]) -> Tensors | None:
        """Pull the derivatives of a loss with respect to the levels inside ``name`` back to ``name``.

        Visits each level once, after every level that depends on it, and adds cotangents where paths meet.

        Args:
            name: The upper level.
            cotangents: dL/dtheta_m for the members m of inside(name) that its loss reads.

        Returns:
            The part of the total gradient that goes through the levels below, or ``None`` where nothing does.

        Raises:
            NonFiniteError: A method met numbers that are not finite.
            ProblemError: One needs second derivatives of an operation that torch has none for.
        """
        pending = dict(cotangents)
        for member in reversed(self.inside[name]):
            cotangent = pending.pop(member, None)
            targets = [i for i in self._arguments(name, member) if i == name or i in self.inside[name]]
            if cotangent is None or not targets:
                continue
            method = self.method(member)
            try:
                with second_derivatives(f"problem '{member}': {method.name}"):
                    pulled = method.pull_back(self.linearize(member, targets), cotangent)
            except NonFiniteError as error:
                raise NonFiniteError(f"edge {name} -> {member}: {error}") from error
            for target, part in self.split(targets, pulled).items():
                pending[target] = add(pending[target], part) if target in pending else part
        return pending.get(name)

    def _objective(self, name: str, inputs: Sequence[str], moment: Moment | None) -> Objective:
        level = self.levels[name]

        def values(solution: Tensors, flat: Tensors) -> Values:
            given = {**(moment.values if moment is not None else {}), **self.split(inputs, flat), name: solution}
            if self.total:
                self._respond(name, given, moment)
            return given

        def function(solution: Tensors, flat: Tensors) -> Evaluation:
            return level.evaluate(values(solution, flat), moment)

        def draw(solution: Tensors, flat: Tensors, number: int) -> Sequence[Evaluation]:
            given = values(solution, flat)
            return [level.evaluate(given, moment, draw=k) for k in range(number)]

        return level.describe(Objective(function, draw=draw), inputs, moment, method=self.method(name))

    def _respond(self, name: str, values: dict[str, Tensors], moment: Moment | None = None) -> None:
        """Add the responses of the levels inside ``name`` to the values that they respond to."""
        for member in self.inside[name]:
            inputs = [i for i in self._arguments(name, member) if i in values]
            flat = tuple(tensor for i in inputs for tensor in values[i])
            level = self.levels[member]
            objective = self._objective(member, inputs, None if moment is None else moment.members[member])
            solution = level.parameters if moment is None else moment.values[member]
            values[member] = respond(self.method(member), objective, solution, flat, whose=f"problem '{member}'")

    def _arguments(self, name: str, member: str) -> Iterable[str]:
        held = self.held[name].get(member, frozenset())
        return [i for i in self.inputs[member] if i not in held]

    def _flat(self, names: Iterable[str]) -> Tensors:
        return tuple(tensor for name in names for tensor in self.levels[name].parameters)

    def split(self, names: Iterable[str], flat: Tensors) -> dict[str, Tensors]:
        """The parameters of each level out of those of all, one after another."""
        parts, start = {}, 0
        for name in names:
            stop = start + len(self.levels[name].parameters)
            parts[name] = flat[start:stop]
            start = stop
        return parts


def _detached(tensors: Tensors) -> Tensors:
    return tuple(t.detach() for t in tensors)
