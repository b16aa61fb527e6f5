"""The programs of one problem's level steps, made as the steps come again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from torch import Tensor
from torch.utils import _pytree as pytree

from ...hypergrad.errors import TracingError
from ...problems.moment import Moment
from ...problems.problem import Problem
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
from .step import Compilation, graphs_of
from .trial import Trial
from .worth import too_late

CHANGES = 8
"""So many steps may take something for granted that no other does, before that is taken to change all the time."""


class Programs:
    """Takes the steps that come again.

    Args:
        problem: The problem.
        below: Those whose derivative is a part of its programs.
        problems: All problems by name.
        gradients: What differentiates them eagerly.
        compilation: Counts the programs, and the seconds that they took to compile.
        left: How many seconds what they take over will take until the end of the run, eagerly.
        took: Is told how many seconds were spent on compiling amid the steps of problems above.

    Raises:
        TracingError: They cannot be compiled, as is known beforehand.
    """

    def __init__(
        self,
        problem: Problem,
        below: Sequence[Problem],
        problems: Mapping[str, Problem],
        gradients: Gradients,
        compilation: Compilation,
        left: Callable[[], float],
        took: Callable[[float], None],
    ) -> None:
        _refuse(problem, "its own")
        for lower in below:
            _refuse_below(lower)
        self._problem = problem
        self._below = below
        self._problems = problems
        self._gradients = gradients
        self._compilation = compilation
        self._left = left
        self._took = took
        inside = [problems[member] for member in gradients.relations.inside[problem.name]]
        self._parameters = [p for member in (problem, *inside) for p in member.level.parameters]
        self._reads = Reads([problem, *below])
        self._seen: set[Hashable] = set()
        self._programs: dict[Hashable, Program | None] = {}
        self._trial: tuple[Program, Trial] | None = None

    def step(self, moment: Moment) -> Result | None:
        """Loss, metrics and gradients on a batch; ``None`` where they are to be computed eagerly, and judged by.

        Raises:
            TracingError: The steps cannot be compiled.
        """
        self._trial = None
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

    def judge(self, result: Result) -> str | None:
        """What a program on trial finds else than an eager step; ``None`` where there is none, or it does not."""
        if self._trial is None:
            return None
        (program, trial), self._trial = self._trial, None
        return program.judge(trial, result)

    def _program(self, moments: Mapping[str, Moment], reading: Reading) -> Program | None:
        graphs = graphs_of(self._problem)
        stage, sweeps, derivative = Stage(self._problems, moments, reading), bool(self._below), graphs is not None
        recording = record(stage, self._gradients, self._problem, sweeps=sweeps, derivative=derivative)
        reason = too_late(self._left(), recording.operations, programs=2 if derivative else 1)
        if reason is not None:
            if not self._compilation.programs:
                raise TracingError(reason)
            return None
        with show(f"the steps of '{self._problem.name}'", recording.operations):
            if graphs is None:
                program = Program(recording, self._problem, self._problems)
            else:
                program = KeptProgram(recording, self._problem, self._problems, graphs, self._took_later)
        self._compilation.programs += 1
        self._compilation.seconds += program.seconds
        return program

    def _took_later(self, seconds: float) -> None:
        self._compilation.seconds += seconds
        self._took(seconds)


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


def _assumed(problem: Problem) -> Hashable:
    """What a program takes for granted of a problem besides its training step."""
    memory, reads = problem.level.memory, problem.method.reads_optimizer
    decay = problem.level.decay
    if not memory and not reads and not decay:
        return None
    leaves, structure = pytree.tree_flatten(memory)
    kept = (str(structure), *(tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
    return kept, settings(problem.optimizer) if reads else None, tuple(map(float, decay))
