"""The level steps of one problem: compiled once they come again, or eager, with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.utils import _pytree as pytree

from ...hypergrad.errors import CompileWarning, TracingError
from ...problems.moment import Moment
from ...problems.problem import Problem
from ...problems.step_graphs import StepGraphs
from ..gradients import Gradients
from .kept import KeptProgram
from .optimizers import settings
from .outcome import Result
from .program import Program
from .reads import Reading, Reads
from .reasons import reason_of
from .recording import record
from .shown import show
from .staging import Stage
from .trial import Trial
from .worth import too_late

CHANGES = 8
"""So many steps may take something for granted that no other does, before that is taken to change all the time."""


@dataclass
class Compilation:
    """What became of a problem's level steps under ``EngineConfig(compile=True)``.

    Attributes:
        programs: How many programs there are of them.
        seconds: How long these took to compile.
        steps: How many level steps they took.
        reason: Why the steps run eagerly; ``None`` where they do not.
        sweep_reason: Why the derivative through the levels below is computed eagerly, though the rest is compiled.
    """

    programs: int = 0
    seconds: float = 0.0
    steps: int = 0
    reason: str | None = None
    sweep_reason: str | None = None


class CompiledStep:
    """Loss, metrics and gradients of one problem's level steps, by compiled programs.

    A step that comes again in the same way (through the same Python code, with the same shapes) is recorded and
    compiled. The first ones, and what cannot be compiled, are left to the eager engine: the derivative through the
    levels below where only that cannot.

    Args:
        name: The problem.
        problems: All problems by name.
        gradients: What differentiates them eagerly.
        time_left: How many seconds its steps will take until the end of the run, eagerly.

    Attributes:
        compilation: What became of them.
    """

    def __init__(
        self, name: str, problems: Mapping[str, Problem], gradients: Gradients, time_left: Callable[[], float]
    ) -> None:
        self._problem = problems[name]
        self._problems = problems
        self._gradients = gradients
        self._time_left = time_left
        self._inside = [problems[member] for member in gradients.relations.inside[name]]
        self._below = self._inside
        self._parameters = [p for problem in (self._problem, *self._inside) for p in problem.level.parameters]
        self._begun = False
        self.compilation = Compilation()
        self._forget()

    def _forget(self) -> None:
        self.compilation.programs = 0
        self._reads: Reads | None = None
        self._seen: set[Hashable] = set()
        self._programs: dict[Hashable, Program | None] = {}
        self._trial: tuple[Program, Trial] | None = None

    def __call__(self, moment: Moment) -> Result | None:
        """Loss, metrics and gradients on a batch; ``None`` where they are to be computed eagerly, and shown to us."""
        self._trial = None
        if self.compilation.reason is not None:
            return None
        if not self._begun:  # whatever is wrong with a step, its eager form says it best
            self._begun = True
            return None
        try:
            result = self._step(moment)
        except TracingError as error:
            self._give_up(str(error))
            return None
        if result is None:
            return None
        self.compilation.steps += 1
        if self.compilation.sweep_reason is None:
            return result
        loss, metrics, found = result
        return loss, metrics, self._gradients.swept(self._problem.name, found.direct, dict(found.cotangents))

    def took_eagerly(self, result: Result) -> None:
        """Take note of what an eager step resulted in: a program on trial has to have found the same."""
        if self._trial is None:
            return
        (program, trial), self._trial = self._trial, None
        if (objection := program.judge(trial, result)) is not None:
            self._give_up(f"its program finds {objection}")

    def _give_up(self, reason: str) -> None:
        """Go on without the derivative through the levels below, or eagerly."""
        self._forget()
        if self._below:
            self._below = []
            self.compilation.sweep_reason = reason
            return
        self.compilation.reason, self.compilation.sweep_reason = reason, None
        self._warn("is not compiled and runs eagerly", reason)

    def _warn_of_sweep(self) -> None:
        """Unless each level below goes back through graphs that were kept, which are programs of its own."""
        reason = self.compilation.sweep_reason
        if reason is not None and not all(_graphs(problem) for problem in self._inside):
            self._warn("is compiled but for the derivative through the levels below, which runs eagerly", reason)

    def _warn(self, what: str, reason: str) -> None:
        warnings.warn(f"problem '{self._problem.name}' {what}: {reason}", CompileWarning, stacklevel=2)

    def _step(self, moment: Moment) -> Result | None:
        if self._reads is None:
            _refuse(self._problem, "its own")
            for problem in self._below:
                _refuse_below(problem)
            self._reads = Reads([self._problem, *self._below])
        if any([p._backward_hooks for p in self._parameters]):
            raise TracingError("a parameter has a hook on its gradient (register_hook), which a program would not call")
        moments = {self._problem.name: moment}
        for problem in self._below:
            moments[problem.name] = problem.level.moment or problem.level.next_moment()
        reading = self._reads.look([known.batch for known in moments.values()])
        key = (reading.way, *[_assumed(problem) for problem in self._below])
        if key not in self._programs:
            if key not in self._seen:
                if len(self._seen) - len(self._programs) >= CHANGES:
                    raise TracingError(
                        "what its steps take for granted is another at each of them: what the method below remembers, "
                        "or settings of an optimizer that its method reads (momentum, betas, weight decay)"
                    )
                self._seen.add(key)
                return None
            # What it takes for a constant may be another at the next step, so that is where it is tried.
            self._programs[key] = self._program(moments, reading)
            return None
        program = self._programs[key]
        if program is None:
            return None
        if not program.trusted:
            try:
                self._trial = program, program.on_trial(reading, moments, sweeps=bool(self._below))
            except Exception as error:
                raise reason_of(error) from error
            return None
        return program.run(reading, moments)

    def _program(self, moments: Mapping[str, Moment], reading: Reading) -> Program | None:
        graphs = _graphs(self._problem)
        stage, sweeps, derivative = Stage(self._problems, moments, reading), bool(self._below), graphs is not None
        recording = record(stage, self._gradients, self._problem, sweeps=sweeps, derivative=derivative)
        if (reason := too_late(recording.operations, self._time_left())) is not None:
            if not self.compilation.programs:
                raise TracingError(reason)
            return None
        with show(f"the steps of '{self._problem.name}'", recording.operations):
            if graphs is None:
                program = Program(recording, self._problem, self._problems)
            else:
                program = KeptProgram(recording, self._problem, self._problems, graphs, self._took)
        if not any(self._programs.values()):
            self._warn_of_sweep()
        self.compilation.programs += 1
        self._took(program.seconds)
        return program

    def _took(self, seconds: float) -> None:
        self.compilation.seconds += seconds


def _refuse(problem: Problem, whose: str) -> None:
    """Refuse what is known beforehand not to fit into a program."""
    level = problem.level
    if level.update.scaler is not None:
        raise TracingError(f"a loss is scaled anew from step to step ({whose}, with precision='fp16')")
    if level.training_step.samples:
        raise TracingError(f"a training_step draws choices with self.sample ({whose})")
    if level.training_step.host_random:
        raise TracingError(f"a training_step draws from numpy's or Python's random numbers ({whose})")


def _refuse_below(problem: Problem) -> None:
    """Refuse what is known beforehand not to fit into a program of a problem above."""
    if problem.method.needs_tape:
        method = f"{problem.method.name} of '{problem.name}'"
        raise TracingError(f"a method goes back through the steps that were taken ({method})")
    _refuse(problem, f"that of '{problem.name}' below")


def _graphs(problem: Problem) -> StepGraphs | None:
    """Keeps the graphs of a problem's gradients, where its method goes back through them."""
    loop = problem.level.loop
    return loop.graphs if loop is not None else None


def _assumed(problem: Problem) -> Hashable:
    """What a program takes for granted of a problem besides its training step."""
    memory, reads = problem.level.memory, problem.method.reads_optimizer
    decay = problem.level.decay
    if not memory and not reads and not decay:
        return None
    leaves, structure = pytree.tree_flatten(memory)
    kept = (str(structure), *(tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
    return kept, settings(problem.optimizer) if reads else None, tuple(map(float, decay))
