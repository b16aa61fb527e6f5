"""A problem as the mathematics sees it: parameters, and a loss that can be evaluated anywhere without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hypergrad.autograd import scalar_gradients
from ..hypergrad.errors import ConfigError, warn_once
from ..hypergrad.hierarchy import Hierarchy, Values
from ..hypergrad.linearization import Linearization
from ..hypergrad.method import Method
from ..hypergrad.minimised import coupled_decay, maximizes, negated
from ..hypergrad.objective import Decay, Evaluation, Objective
from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors
from ..hypergrad.updates import group_indices
from .ahead import Ahead
from .assembly import assemble, check_initial
from .batches import Batches
from .hooks import Hooks
from .inner_loop import InnerLoop
from .level_state import load_position, load_training_state, position, training_state
from .moment import Moment
from .parts import Parts
from .scoring import reseed
from .slots import Slots
from .training_step import TrainingStep
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
        method: How the best response is differentiated.
        device: Where the first of them is.
        accelerator: Likewise; ``None`` where that is the host.
        batches: The training data.
        update: The optimizer step.
        moment: The last training evaluation; ``None`` before the first.
        loop: The inner loop since the uppers last moved, where the method differentiates it.
        ahead: What the problem's own ``get_batch`` gave ahead of its time.
        training_step: What its ``training_step`` evaluates to.
        memory: What the method remembers from one upper step to the next.
        slots: Where the module keeps the parameters.
    """

    def __init__(self, problem: Problem, device: torch.device | None = None) -> None:
        self._problem = problem
        self.name = problem.name
        self.parameters: Tensors = assemble(problem, device)
        self.method: Method = problem.method
        self.device = self.parameters[0].device
        self.accelerator = None if self.device.type == "cpu" else self.device
        self.batches = Batches(problem.name, problem.train_data_loader, problem.epoch_callback)
        self.moment: Moment | None = None
        self.memory: dict[str, Any] = {}
        self.loop = InnerLoop(problem, self.parameters) if self.method.needs_tape else None
        self.update = Update(problem, self.parameters, self.loop)
        self.hierarchy: Hierarchy | None = None
        self.training_step = TrainingStep(problem, self)
        self.slots = Slots(problem.name, problem.module, self.parameters)
        self.ahead = Ahead()
        self._parts = Parts(problem)
        self._groups = group_indices(problem.optimizer, self.parameters)

    @property
    def is_leaf(self) -> bool:
        """Whether nothing is below."""
        return not self._problem.lowers

    @property
    def decay(self) -> Decay:
        """What the optimizer's weight decay adds to the diagonal of the Hessian, per parameter; empty for nothing."""
        return coupled_decay(self._problem.optimizer, self._groups)

    @property
    def enters_otherwise(self) -> bool:
        """Whether an upper may enter by more than the loss: by where it starts, by what is played or chosen."""
        starts = type(self._problem).initial_parameters is not Hooks.initial_parameters
        samples = self.training_step.samples or self.method.differentiates_choices
        return starts or samples or self._problem.env is not None

    def next_moment(self) -> Moment:
        """Draw a batch and remember it as the current one.

        Raises:
            ProblemError: A part of the problem was replaced.
        """
        self._parts.check()
        batch = self.ahead.take(self._problem.get_batch)
        random = RandomState(self.accelerator, host=self.training_step.host_random is not False)
        self.moment = Moment(batch, random, counted=self._problem.count, writes=self.training_step.writes_in(batch))
        return self.moment

    def upcoming_moment(self, stream: int = 0) -> Moment:
        """What :meth:`next_moment` will be, without moving on.

        Args:
            stream: Random numbers independent of those of another stream; those of 0 are the very next ones.
        """
        device = self.device
        if not self._problem.draws_its_own_batches:
            batch = self.batches.peek(device)
        else:
            # A get_batch() of the user's own cannot be taken back: what it gives waits for the next step.
            batch = self.ahead.look(self._problem.get_batch, device)
        now = RandomState(device, host=True)
        if stream:
            reseed(-stream, device)  # an evaluation's draws are the streams above zero
        random = RandomState(device, host=True)
        moment = Moment(batch, random, counted=self._problem.count, writes=self.training_step.writes_in(batch))
        now.restore()
        return moment

    def gradients(self, loss: Tensor, wrt: Tensors) -> tuple[Tensor | None, ...]:
        """The gradients of the loss that :meth:`train` evaluated last, whose graph is freed unless it is kept."""
        kept = self.loop.gradients(loss) if self.loop is not None else None
        return scalar_gradients(loss, wrt) if kept is None else kept

    def start_inner_loop(self) -> None:
        """Go to the initial parameters, where the problem has any, and begin to record from there."""
        initial = self._problem.initial_parameters()
        if initial is not None:
            check_initial(self._problem.name, self.parameters, initial)
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, tuple(t.detach() for t in initial))
        # While the uppers wait for another lower, the steps before are a part of the loop that led here.
        warm = self.update.steps == self._problem.config.warmup_steps
        if self.loop is not None and (initial is not None or self._problem.starts_inner_loops_itself or warm):
            self.loop.begin(self.initial_given if initial is not None else None)

    def evaluate(self, values: Mapping[str, Tensors], moment: Any = None, *, draw: int | None = None) -> Evaluation:
        """The loss with other tensors in place of some problems' parameters; nothing else changes, or notices.

        Args:
            values: The tensors, by the names of the problems that they stand in for.
            moment: The batch and the random numbers; those of the last training evaluation by default.
            draw: Which of many independent draws of the sampled choices; without one, the loss is what training would
                differentiate, with the choices that it made.
        """
        return self.training_step.evaluate(values, moment, draw)

    def describe(self, objective: Objective, inputs: Sequence[str], moment: Any = None, *, method: Method) -> Objective:
        """Attach what methods may know besides the objective."""
        loop = self.loop if moment is None else moment.loop
        described = dataclasses.replace(
            objective,
            state=self.memory,
            optimizer=self._problem.optimizer,
            parameters=self.parameters,
            tape=loop.tape(inputs) if loop is not None else None,
            decay=self.decay,
        )
        # A method that follows the optimizer's steps knows which way they go.
        ascends = not (method.needs_tape or method.reads_optimizer) and maximizes(self._problem.optimizer)
        return negated(described) if ascends else described

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

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {"training": training_state(self._problem), "position": position(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned; random numbers stay as they are."""
        load_training_state(self._problem, state["training"])
        load_position(self, state["position"])

    def other(self, name: str) -> ProblemLevel:
        """The level of that name in the same engine."""
        levels = self.hierarchy.levels if self.hierarchy is not None else {}
        found = levels.get(name)
        return found if isinstance(found, ProblemLevel) else self._problem.reachable[name].level

    def loop_from_state(self, state: dict[str, Any]) -> InnerLoop:
        """An inner loop of this problem, as it was."""
        loop = InnerLoop(self._problem, self.parameters)
        loop.load_state_dict(state)
        return loop

    def initial_given(self, inputs: Sequence[str], left: Values) -> Callable[[Tensors], Tensors]:
        """The initial parameters as a function of the parameters of ``inputs``."""

        def function(flat: Tensors) -> Tensors:
            hierarchy = self.hierarchy or self._alone([self._problem.reachable[name] for name in inputs])
            then = hierarchy.split(inputs, hierarchy.values_then(inputs, flat, left))
            with self.training_step.substituted(then):
                return tuple(self._problem.initial_parameters() or ())

        return function

    def _alone(self, uppers: Sequence[Problem]) -> Hierarchy:
        """A hierarchy for a problem that is in no engine: its lowers, if it has any, do not respond."""
        if self._problem.lowers:
            below = " and ".join(f"'{problem.name}'" for problem in self._problem.lowers)
            warn_once(
                f"lowers of {self.name} held fixed",
                f"problem '{self.name}' is differentiated outside of an engine, with {below} below it held fixed; an "
                "Engine lets them respond",
            )
        name, others = self._problem.name, [p.name for p in uppers]
        levels = {name: self, **{p.name: p.level for p in uppers}}
        empty: dict[str, list[str]] = {n: [] for n in levels}
        return Hierarchy(levels, inside=empty, inputs={**empty, name: others}, held={n: {} for n in levels})
