"""The parts of a problem that an engine took up: it goes on with these, whatever takes their place in the problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..hypergrad.errors import ProblemError

if TYPE_CHECKING:
    from .problem import Problem

WAYS_OUT = {
    "module": "load other values into it (load_state_dict)",
    "optimizer": "change its param_groups, or give it another state (load_state_dict)",
    "scheduler": "give it another state (load_state_dict)",
    "train_data_loader": "let it give other batches, or override get_batch()",
    "config": "set it before",
}
"""What to do instead of assigning another one."""


class Parts:
    """Notices where a part was replaced.

    Args:
        problem: The problem, assembled.
    """

    __slots__ = ("_draws", "_held", "_parts", "_problem")

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._draws = problem.draws_its_own_batches
        self._parts = self._now()
        self._held = self._count()

    def check(self) -> None:
        """Refuse to go on with parts that are the problem's no longer.

        Raises:
            ProblemError: One was replaced, or the optimizer was given further parameters.
        """
        problem = self._problem
        module, optimizer, scheduler, loader, config = self._parts
        if (
            problem.optimizer is optimizer
            and problem.module is module
            and problem.scheduler is scheduler
            and (self._draws or problem.train_data_loader is loader)
            and problem.config is config
            and self._count() == self._held
        ):
            return
        for part, now, then in zip(WAYS_OUT, self._now(), self._parts, strict=True):
            if now is not then:
                raise ProblemError(
                    f"problem '{self._problem.name}': its {part} was replaced, and the engine that took the problem up "
                    f"would go on with the one before; {WAYS_OUT[part]}, or build another engine"
                )
        raise ProblemError(
            f"problem '{self._problem.name}': its optimizer held {self._held} tensors when the engine took it up, and "
            f"holds {self._count()} now; an engine trains what was there then. Give the optimizer all parameters "
            "before (a group with lr=0 waits), or build another engine"
        )

    def _now(self) -> tuple[object, ...]:
        p = self._problem
        return p.module, p.optimizer, p.scheduler, self._loader(), p.config

    def _loader(self) -> object:
        """What a ``get_batch`` of the problem's own makes of its loader is its own affair."""
        return None if self._draws else self._problem.train_data_loader

    def _count(self) -> int:
        first, *others = self._problem.optimizer.param_groups
        return len(first["params"]) + sum([len(group["params"]) for group in others])
