"""Recording a problem's inner loop, for the method that differentiates it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..hypergrad.clipping import Clipping
from ..hypergrad.errors import ConfigError, ProblemError
from ..hypergrad.hierarchy import Hierarchy, Values
from ..hypergrad.precision import like
from ..hypergrad.tape import Step, Tape
from ..hypergrad.tensors import Tensors
from ..hypergrad.update_rules import ParameterState
from ..hypergrad.updates import group_options, optimizer_states, update_rule
from .moment import Moment
from .moment_state import moment_from_state, moment_state
from .step_graphs import StepGraphs

if TYPE_CHECKING:
    from .problem import Problem

Initial = Callable[[Sequence[str], Values], Callable[[Tensors], Tensors]]
"""The starting point as a function of inputs, given their names and the values that some of them had then."""


class InnerLoop:
    """The steps of a problem since its uppers last moved.

    Args:
        problem: The problem.
        parameters: Its trainable parameters.

    Attributes:
        over: Whether an upper has moved since, so that the next step begins a new loop.
        graphs: The graphs of its gradients; ``None`` where they are not kept.

    Raises:
        ConfigError: The update of the problem's optimizer cannot be differentiated.
    """

    def __init__(self, problem: Problem, parameters: Tensors) -> None:
        self._problem = problem
        self._parameters = parameters
        config = problem.config
        self._clipping = Clipping(config.gradient_clipping, config.gradient_clipping_by)
        self._kept_points = problem.method.kept_points
        # A gradient that a callback edited is not the one that has the graph, nor is a scaled one.
        plain = not problem.lowers and not problem.edits_gradients and config.precision != "fp16"
        self.graphs = StepGraphs(problem, parameters) if problem.method.keeps_graphs and plain else None
        try:
            self.begin()
        except ConfigError as error:
            raise ConfigError(f"problem '{problem.name}': {error}") from error

    def begin(self, initial: Initial | None = None) -> None:
        """Forget the past: the loop starts at the current parameters."""
        self.over = False
        self._batches: list[Moment] = []
        self._steps: list[tuple[Moment, ...]] = []
        self._left: dict[str, Tensors] = {}
        self._initial = initial
        # Where it starts is copied when the first step is: nothing steps before.
        rule = update_rule(self._problem.optimizer, self._parameters)
        self._tape = Tape(self._parameters, ({},) * len(self._parameters), rule)
        if self.graphs is not None:
            self.graphs.forget()

    def add_batch(self, moment: Moment) -> None:
        """Note one batch, and what it takes to look back at it."""
        self._batches.append(moment)

    def add_step(self, batches: int) -> None:
        """Note that the optimizer is about to step on so many batches: those since its last step."""
        optimizer, tape = self._problem.optimizer, self._tape
        groups, before, graph = group_options(optimizer), None, None
        if self._kept_points:
            if self.graphs is not None:
                descends = not self._clipping and tape.rule.descent_rate(groups) is not None
                graph = self.graphs.of_step(batches, with_values=not descends)
            copies = graph.leaves if graph is not None else tuple(p.clone() for p in self._parameters)
            before = tuple(p.detach() for p in copies), optimizer_states(optimizer, self._parameters)
            self._connect(copies)
        tape.add(Step((), groups, self._clipping, before, graph), self._kept_points or sys.maxsize)
        if len(tape.steps) == 1:
            tape.start = before[0] if before else tuple(p.detach().clone() for p in self._parameters)
            tape.optimizer_state = before[1] if before else optimizer_states(optimizer, self._parameters)
        self._steps.append(tuple(self._batches))
        self._batches = []

    def end_step(self) -> None:
        """Note that the optimizer stepped."""
        graph = self._tape.steps[-1].graph
        if graph is not None and self.graphs is not None:
            graph.end = self.graphs.after_step()

    def drop_batch(self) -> None:
        """Forget the batch that was noted last: it was left out."""
        self._batches.pop()
        if self.graphs is not None:
            self.graphs.forget()

    def drop_step(self) -> None:
        """Forget the step that was noted last: it was not taken."""
        self._tape.steps.pop()
        self._steps.pop()

    def leave(self, upper: str, parameters: Tensors) -> None:
        """End the loop because an upper moved, from the given parameters on; it can still be looked back at."""
        self.over = True
        self._left.setdefault(upper, parameters)

    def frozen(self) -> InnerLoop:
        """The loop as it is now, to be kept while this one goes on."""
        copy = object.__new__(InnerLoop)
        copy.__dict__.update(self.__dict__)
        copy._steps, copy._left = list(self._steps), dict(self._left)
        tape = self._tape
        start = tape.start if tape.steps else tuple(t.detach().clone() for t in tape.start)
        steps = [dataclasses.replace(step, graph=None) for step in tape.steps]
        copy._tape = dataclasses.replace(tape, start=start, steps=steps)
        return copy

    def become(self, other: InnerLoop) -> None:
        """Go on from another recording of the same problem's inner loop."""
        self.__dict__.update({**other.frozen().__dict__, "graphs": self.graphs})

    def tape(self, inputs: Sequence[str]) -> Tape:
        """The tape as a function of the parameters of ``inputs``."""
        name, hierarchy = self._problem.name, self._hierarchy()
        kept = [step.graph for step in self._tape.steps]
        usable = self.graphs.usable(kept) if self.graphs is not None and not self.over else [None] * len(kept)
        steps = [
            Step(
                tuple(hierarchy.past_step(name, inputs, self._then(moment), self._left) for moment in batches),
                step.groups,
                step.clipping,
                step.before,
                graph,
            )
            for batches, step, graph in zip(self._steps, self._tape.steps, usable, strict=True)
        ]
        initial = self._initial(inputs, self._left) if self._initial is not None else None
        live = tuple(p for other in inputs for p in hierarchy.levels[other].parameters)
        tape = self._tape
        return Tape(tape.start, tape.optimizer_state, tape.rule, initial, steps, live)

    def gradients(self, loss: Tensor) -> tuple[Tensor | None, ...] | None:
        """The gradients of the loss of the batch that was noted last; ``None`` where their graphs are not kept."""
        if self.graphs is None or not self.graphs.are_kept:
            return None
        found = self.graphs.gradients(loss)
        if not self.graphs.are_kept and self._tape.steps:
            # Perhaps the training step wrote to the copies, which say where the last step led.
            self._tape.steps[-1] = dataclasses.replace(self._tape.steps[-1], graph=None)
        return found

    def _connect(self, start: Tensors) -> None:
        """Let the last step be taken again if it did not lead to where the next one begins: something else wrote."""
        steps = self._tape.steps
        if steps and (graph := steps[-1].graph) is not None and not graph.leads_to(start):
            steps[-1] = dataclasses.replace(steps[-1], graph=None)

    def _then(self, moment: Moment) -> Moment:
        """A recorded moment with the uppers that have moved since, those included that are not differentiated."""
        return moment._replace(values={**self._left, **moment.values}) if self._left else moment

    def state_dict(self) -> dict[str, Any]:
        """The recorded steps, as data."""
        return {
            "over": self.over,
            "batches": [moment_state(moment) for moment in self._batches],
            "steps": [[moment_state(moment) for moment in batches] for batches in self._steps],
            "left": dict(self._left),
            "initial": self._initial is not None,
            "start": tuple(t.detach() for t in self._tape.start),
            "optimizer": self._tape.optimizer_state,
            "groups": [step.groups for step in self._tape.steps],
            "points": [step.before for step in self._tape.steps],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        level = self._problem.level
        self.begin(level.initial_given if state["initial"] else None)
        self.over = state["over"]
        self._batches = [moment_from_state(m, level) for m in state["batches"]]
        self._steps = [tuple(moment_from_state(m, level) for m in batches) for batches in state["steps"]]
        self._left = {name: like(values, level.other(name).parameters) for name, values in state["left"].items()}
        self._tape.start = like(state["start"], self._parameters)
        self._tape.optimizer_state = self._on_device(state["optimizer"])
        self._tape.steps = [
            Step((), tuple(groups), self._clipping, self._point(point))
            for groups, point in zip(state["groups"], state["points"], strict=True)
        ]

    def _point(self, state: Any) -> tuple[Tensors, tuple[ParameterState, ...]] | None:
        return None if state is None else (like(state[0], self._parameters), self._on_device(state[1]))

    def _on_device(self, states: Sequence[ParameterState]) -> tuple[ParameterState, ...]:
        return tuple(
            {key: value.to(p.device) if hasattr(value, "to") and value.dim() else value for key, value in kept.items()}
            for kept, p in zip(states, self._parameters, strict=True)
        )

    def _hierarchy(self) -> Hierarchy:
        hierarchy = self._problem.level.hierarchy
        if hierarchy is None:
            raise ProblemError(f"problem '{self._problem.name}': its inner loop was recorded outside of an engine")
        return hierarchy
