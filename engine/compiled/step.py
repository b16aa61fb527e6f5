"""The level steps of one problem: compiled once they come again, or eager, with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...hypergrad.errors import CompileWarning, TracingError
from ...problems.moment import Moment
from ...problems.problem import Problem
from ...problems.step_graphs import StepGraphs
from ..gradients import Gradients
from .outcome import Result
from .worth import Pace, too_late

if TYPE_CHECKING:
    from .programs import Programs


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
        pace: How long its eager steps take.
        took: Is told how many seconds were spent on compiling amid the steps of problems above.

    Attributes:
        compilation: What became of them.
    """

    def __init__(
        self,
        name: str,
        problems: Mapping[str, Problem],
        gradients: Gradients,
        pace: Pace,
        took: Callable[[float], None],
    ) -> None:
        self._problem = problems[name]
        self._problems = problems
        self._gradients = gradients
        self._pace = pace
        self._took = took
        self._inside = [problems[member] for member in gradients.relations.inside[name]]
        self._below = self._inside
        self._programs: Programs | None = None
        self.compilation = Compilation()

    def __call__(self, moment: Moment) -> Result | None:
        """Loss, metrics and gradients on a batch; ``None`` where they are to be computed eagerly, and shown to us."""
        # Whatever is wrong with a step, its eager form says it best: the first ones are no program's.
        if self.compilation.reason is not None or not self._pace.known:
            return None
        if self._programs is None and (reason := too_late(self._left())) is not None:
            self._stay_eager(reason)
            return None
        before = self.compilation.programs
        try:
            result = self._begun().step(moment)
        except TracingError as error:
            self._give_up(str(error))
            return None
        if self.compilation.programs > before == 0:
            self._warn_of_sweep()
        if result is None:
            return None
        self.compilation.steps += 1
        if self.compilation.sweep_reason is None:
            return result
        loss, metrics, found = result
        return loss, metrics, self._gradients.swept(self._problem.name, found.direct, dict(found.cotangents))

    def took_eagerly(self, result: Result, laps: Mapping[str, float]) -> None:
        """Take note of what an eager step resulted in: a program on trial has to have found the same.

        Args:
            result: Its loss, metrics and gradients.
            laps: The seconds that its parts took.
        """
        self._pace.took(laps)
        if self._programs is not None and (objection := self._programs.judge(result)) is not None:
            self._give_up(f"its program finds {objection}")

    def _left(self) -> float:
        """How many seconds all that programs would take over will take until the end of the run."""
        return self._pace.left("forward", "backward", *(["sweep"] if self._below else []))

    def _begun(self) -> Programs:
        if self._programs is None:
            from .programs import Programs  # what it needs takes a while to import, and may not be needed

            self._programs = Programs(
                self._problem, self._below, self._problems, self._gradients, self.compilation, self._left, self._took
            )
        return self._programs

    def _give_up(self, reason: str) -> None:
        """Go on without the derivative through the levels below, or eagerly."""
        self._programs, self.compilation.programs = None, 0
        if self._below:
            self._below = []
            self.compilation.sweep_reason = reason
        else:
            self._stay_eager(reason)

    def _stay_eager(self, reason: str) -> None:
        self.compilation.reason, self.compilation.sweep_reason = reason, None
        self._warn("is not compiled and runs eagerly", reason)

    def _warn_of_sweep(self) -> None:
        """Unless each level below goes back through graphs that were kept, which are programs of its own."""
        reason = self.compilation.sweep_reason
        if reason is not None and not all(graphs_of(problem) for problem in self._inside):
            self._warn("is compiled but for the derivative through the levels below, which runs eagerly", reason)

    def _warn(self, what: str, reason: str) -> None:
        warnings.warn(f"problem '{self._problem.name}' {what}: {reason}", CompileWarning, stacklevel=2)


def graphs_of(problem: Problem) -> StepGraphs | None:
    """Keeps the graphs of a problem's gradients, where its method goes back through them."""
    loop = problem.level.loop
    return loop.graphs if loop is not None else None
