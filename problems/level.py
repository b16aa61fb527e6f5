"""A problem as the mathematics sees it: parameters, and a loss that can be evaluated anywhere without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hypergrad.errors import ConfigError, ProblemError
from ..hypergrad.hierarchy import Hierarchy, Values
from ..hypergrad.linearization import Linearization
from ..hypergrad.method import Method
from ..hypergrad.objective import Evaluation, Objective
from ..hypergrad.replay import RandomState
from ..hypergrad.score import surrogate
from ..hypergrad.tensors import Tensors
from .ahead import Ahead
from .assembly import assemble
from .batches import Batches
from .inner_loop import InnerLoop
from .losses import read_loss
from .moment import Moment
from .sampling import Choice, sampling
from .slots import Buffers, Slots
from .update import Update

if TYPE_CHECKING:
    from .problem import Problem


class ProblemLevel:
    """The working parts of one problem, assembled once.

    Args:
        problem: The problem.
        device: Where to move its module; ``None`` leaves it where it is.

    Attributes:
        parameters: The trainable parameters.
        batches: The training data.
        update: The optimizer step.
        moment: The last training evaluation; ``None`` before the first.
        choices: What it sampled.
        loop: The inner loop since the uppers last moved, where the method differentiates it.
    """

    def __init__(self, problem: Problem, device: torch.device | None = None) -> None:
        self._problem = problem
        self.parameters: Tensors = assemble(problem, device)
        self.batches = Batches(problem.name, problem.train_data_loader, problem.epoch_callback)
        self.moment: Moment | None = None
        self.memory: dict[str, Any] = {}
        self.loop = InnerLoop(problem, self.parameters) if problem.method.needs_tape else None
        self.update = Update(problem, self.parameters, self.loop)
        self.hierarchy: Hierarchy | None = None
        self.choices: tuple[Choice, ...] = ()
        self._slots = Slots(problem.name, problem.module, self.parameters)
        self._buffers: Buffers | None = None
        self._host_random: bool | None = None
        self._ahead = Ahead()

    @property
    def method(self) -> Method:
        """How the best response is differentiated."""
        return self._problem.method

    def next_moment(self) -> Moment:
        """Draw a batch and remember it as the current one."""
        batch = self._ahead.take(self._problem.get_batch)
        self.moment = Moment(batch, RandomState(self.parameters[0].device, host=self._host_random is not False))
        return self.moment

    def upcoming_moment(self) -> Moment:
        """What :meth:`next_moment` will be, without moving on."""
        device = self.parameters[0].device
        if not self._problem.draws_its_own_batches:
            batch = self.batches.peek(device)
        else:
            # A get_batch() of the user's own cannot be taken back: what it gives waits for the next step.
            batch = self._ahead.look(self._problem.get_batch, device)
        return Moment(batch, RandomState(device, host=True))

    def train(self, moment: Moment) -> tuple[Evaluation, dict[str, Tensor]]:
        """Evaluate the loss for training, at the live parameters: buffers and random numbers move on."""
        with self.precision(), sampling() as choices:
            result = self._problem.training_step(moment.batch)
        if self._host_random is None:
            self._host_random = moment.random.host_moved()
        self.choices = tuple(choices)
        evaluation, metrics = read_loss(self._problem.name, result)
        return self._scored(evaluation._replace(choices=tuple(c.log_prob for c in choices))), metrics

    def start_inner_loop(self) -> None:
        """Go to the initial parameters, where the problem has any, and begin to record from there."""
        initial = self._problem.initial_parameters()
        if initial is not None:
            self._check_initial(initial)
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, tuple(t.detach() for t in initial))
        if self.loop is not None:
            self.loop.begin(self._initial_given if initial is not None else None)

    def evaluate(self, values: Mapping[str, Tensors], moment: Any = None, *, draw: int | None = None) -> Evaluation:
        """The loss with other tensors in place of some problems' parameters; nothing else changes, or notices.

        Args:
            values: The tensors, by the names of the problems that they stand in for.
            moment: The batch and the random numbers; those of the last training evaluation by default.
            draw: Which of many independent draws of the sampled choices; without one, the loss is what training would
                differentiate, with the choices that it made.
        """
        moment = moment or self.moment or self.next_moment()
        with self._untraced(moment), self.substituted(values), self.precision(), sampling() as choices:
            if draw:
                _reseed(draw)
            evaluation, _ = read_loss(self._problem.name, self._problem.training_step(moment.batch))
        evaluation = evaluation._replace(choices=tuple(c.log_prob for c in choices))
        return evaluation if draw is not None else self._scored(evaluation)

    def _scored(self, evaluation: Evaluation) -> Evaluation:
        """Where the problem's own gradient is estimated by the score function, the loss that has that gradient."""
        problem = self._problem
        if problem.config.estimator == "score":
            if not any(c.requires_grad for c in evaluation.choices):
                raise ProblemError(
                    f"problem '{problem.name}': estimator='score' needs choices whose distribution depends on "
                    "parameters that are trained; draw them with self.sample(distribution)"
                )
            return evaluation._replace(loss=surrogate([evaluation]))
        if not evaluation.loss.requires_grad and evaluation.choices:
            raise ProblemError(
                f"problem '{problem.name}': its loss or reward cannot be differentiated, but its choices can: "
                "set Config(estimator='score')"
            )
        return evaluation

    def describe(self, objective: Objective, inputs: Sequence[str], moment: Any = None) -> Objective:
        """Attach what methods may know besides the objective."""
        loop = self.loop if moment is None else moment.loop
        return dataclasses.replace(
            objective,
            state=self.memory,
            optimizer=self._problem.optimizer,
            parameters=self.parameters,
            tape=loop.tape(inputs) if loop is not None else None,
        )

    def linearize(self, uppers: Sequence[Problem]) -> Linearization:
        """The objective around the current point, as a function of the parameters of ``uppers``."""
        name = self._problem.name
        hierarchy = self.hierarchy if self.hierarchy is not None else self._alone(uppers)
        known = hierarchy.inputs[name] if self.hierarchy is not None else [p.name for p in self._problem.uppers]
        for upper in uppers:
            if upper.name not in known:
                raise ConfigError(
                    f"problem '{name}': its best response does not depend on '{upper.name}'; "
                    f"it depends on: {', '.join(known) or 'no other problem'}"
                )
        return hierarchy.linearize(name, [p.name for p in uppers])

    def precision(self) -> Any:
        """The context in which ``training_step`` runs."""
        if self._problem.config.precision == "fp32":
            return nullcontext()
        # No cache of casts: one made while gradients are off would cut the graph of an evaluation inside another.
        return torch.autocast(self.parameters[0].device.type, torch.bfloat16, cache_enabled=False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        problem = self._problem
        return {
            "module": problem.module.state_dict(),
            "optimizer": problem.optimizer.state_dict(),
            "scheduler": problem.scheduler.state_dict() if problem.scheduler is not None else None,
            "update": self.update.state_dict(),
            "memory": dict(self.memory),
            "count": problem.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        problem = self._problem
        problem.module.load_state_dict(state["module"])
        problem.optimizer.load_state_dict(state["optimizer"])
        if problem.scheduler is not None:
            problem.scheduler.load_state_dict(state["scheduler"])
        self.update.load_state_dict(state["update"])
        self.memory.clear()
        self.memory.update(state["memory"])
        problem.count = state["count"]

    def _initial_given(self, inputs: Sequence[str], left: Values) -> Callable[[Tensors], Tensors]:
        """The initial parameters as a function of the parameters of ``inputs``."""

        def function(flat: Tensors) -> Tensors:
            hierarchy = self.hierarchy or self._alone([self._problem.reachable[name] for name in inputs])
            then = hierarchy.split(inputs, hierarchy.values_then(inputs, flat, left))
            with self.substituted(then):
                return tuple(self._problem.initial_parameters() or ())

        return function

    def _check_initial(self, initial: Sequence[Tensor]) -> None:
        expected, got = [tuple(p.shape) for p in self.parameters], [tuple(t.shape) for t in initial]
        if expected != got:
            raise ProblemError(
                f"problem '{self._problem.name}': initial_parameters() must return one tensor per trainable parameter, "
                f"of shapes {expected}; got {got}"
            )

    def _alone(self, uppers: Sequence[Problem]) -> Hierarchy:
        """A hierarchy for a problem that is in no engine: its lowers, if it has any, do not respond."""
        name, others = self._problem.name, [p.name for p in uppers]
        levels = {name: self, **{p.name: p.level for p in uppers}}
        empty: dict[str, list[str]] = {n: [] for n in levels}
        return Hierarchy(levels, inside=empty, inputs={**empty, name: others}, held={n: {} for n in levels})

    @contextmanager
    def substituted(self, values: Mapping[str, Tensors]) -> Iterator[None]:
        """Let other tensors stand in for the parameters of this problem and its neighbours, where named."""
        reachable = self._problem.reachable
        levels = [(reachable[name].level, tensors) for name, tensors in values.items() if name in reachable]
        try:
            for level, tensors in levels:
                level._slots.put(tensors)
            yield
        finally:
            for level, _ in levels:
                level._slots.put(level.parameters)

    @contextmanager
    def _untraced(self, moment: Moment) -> Iterator[None]:
        """Replay the random numbers of a moment on private buffers."""
        if self._buffers is None:
            self._buffers = Buffers([p.module for p in self._problem.reachable.values()])
        random = RandomState(self.parameters[0].device, host=self._host_random is not False)
        originals = self._buffers.detach()
        moment.random.restore()
        try:
            yield
        finally:
            self._buffers.restore(originals)
            random.restore()


def _reseed(draw: int) -> None:
    """Go from the random numbers that are about to come to an independent stream, always the same one for a draw."""
    torch.manual_seed(int(torch.randint(2**62, ()).item()) + draw)
