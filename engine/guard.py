"""What becomes of a level step whose loss or gradient is infinite or not a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..hypergrad.errors import NonFiniteError
from ..hypergrad.looking import show_waiting
from ..problems.level_state import cloned, load_training_state, training_state
from ..problems.problem import Problem
from .finite import check_finite
from .gradients import Gradients, LevelGradients

RESTORES = 10
"""So often in a row a run goes back to where it last was finite; after that, it never will be."""


class Guard:
    """Looks at gradients before they are used.

    Args:
        problems: The problems by name.
        gradients: What computes the gradients.
        mode: ``EngineConfig.non_finite``.
        every: Engine steps between two looks under ``"raise"``, and between two copies of the state under
            ``"restore"``.

    Attributes:
        skipped: Batches left out so far, by problem.
        restored: How often every problem was put back.
    """

    def __init__(
        self,
        problems: Mapping[str, Problem],
        gradients: Gradients,
        mode: Literal["raise", "skip", "restore"],
        every: int,
    ) -> None:
        self._problems = problems
        self._gradients = gradients
        self._mode = mode
        self._every = every
        self._looked = dict.fromkeys(problems, 0)
        self._traces: Traces | None = None
        self._good: dict[str, Any] | None = None
        self._failing: str | None = None
        self._in_a_row = 0
        self.skipped = dict.fromkeys(problems, 0)
        self.restored = 0

    def before_step(self, step: int) -> None:
        """A level step is about to be taken, in the engine step after so many."""
        if self._mode == "restore" and (self._good is None or step - self._good["step"] >= self._every):
            states = {name: cloned(training_state(problem)) for name, problem in self._problems.items()}
            self._good = {"step": step, "states": states}
            if self._failing is None:
                self._in_a_row = 0

    def before_batch(self, name: str) -> None:
        """The loss of a problem is about to be evaluated on a batch that may have to be left out."""
        if self._mode == "skip":
            self._traces = Traces(self._problems, name)

    def admits(self, name: str, found: LevelGradients, loss: Tensor, *, step: int, last: bool) -> bool:
        """Whether the gradients of a batch may be used.

        Args:
            name: The problem.
            found: Its gradients.
            loss: Its loss.
            step: Engine steps taken, this one included.
            last: Whether it is the last of the run.

        Raises:
            NonFiniteError: They may not, and the mode says to raise; or going back did not help.
        """
        if self._mode == "raise" and not self._is_due(name, step, last):
            return True
        show_waiting()
        try:
            scaled = self._problems[name].level.update.scaler is not None
            check_finite(name, found, loss, self._gradients, scaled=scaled)
        except NonFiniteError as error:
            self.leave_out(name, error)
            return False
        if name == self._failing:
            self._failing = None
        return True

    def leave_out(self, name: str, error: NonFiniteError) -> None:
        """Do with a batch what the mode says: its gradients are not finite, or could not be computed for that reason.

        Raises:
            NonFiniteError: The mode says to raise; or going back did not help.
        """
        if self._mode == "raise":
            raise error
        self.skipped[name] += 1
        if self._traces is not None:
            self._traces.remove()
        if self._mode == "restore":
            self._failing = name
            self._restore(error)

    def state_dict(self) -> dict[str, Any]:
        """Counts, and the state to go back to."""
        return {
            "looked": dict(self._looked),
            "good": self._good,
            "failing": self._failing,
            "in_a_row": self._in_a_row,
            "skipped": dict(self.skipped),
            "restored": self.restored,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._looked, self.skipped = dict(state["looked"]), dict(state["skipped"])
        self._good, self._failing = state["good"], state["failing"]
        self._in_a_row, self.restored = state["in_a_row"], state["restored"]

    def _is_due(self, name: str, step: int, last: bool) -> bool:
        """Whether this is a problem's first level step since another ``every`` engine steps, or in the last one."""
        before, self._looked[name] = self._looked[name], step // self._every
        return before < self._looked[name] or last

    def _restore(self, error: NonFiniteError) -> None:
        self._in_a_row += 1
        self.restored += 1
        if self._good is None or self._in_a_row > RESTORES:
            raise NonFiniteError(
                f"{error}\nThe run was put back to where it last was finite {RESTORES} times and came here again "
                "(EngineConfig(non_finite='restore'))"
            ) from error
        for name, problem in self._problems.items():
            load_training_state(problem, self._good["states"][name])
            if problem.level.loop is not None:
                problem.level.loop.over = True  # the parameters are no longer where its recorded steps led


class Traces:
    """What evaluating a loss and its gradients leaves behind, so that it can be removed.

    Args:
        problems: The problems by name, with what their methods remember.
        name: The one that is evaluated; it moves the buffers of its neighbours too.
    """

    def __init__(self, problems: Mapping[str, Problem], name: str) -> None:
        modules = [problem.module for problem in problems[name].reachable.values()]
        self._buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
        self._memories = [(problem.level.memory, dict(problem.level.memory)) for problem in problems.values()]

    def remove(self) -> None:
        """Put everything back to where it was."""
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        for memory, kept in self._memories:
            memory.clear()
            memory.update(kept)
