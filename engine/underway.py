"""What an engine is in the middle of, and what cannot be asked of it there."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from ..hypergrad.errors import ProblemError


class Part(Enum):
    """A part of a run that holds others: a run its engine steps, an engine step its level steps."""

    RUN = "a run"
    STEP = "an engine step"
    LEVEL_STEP = "a level step"


class Underway:
    """The parts of a run that have begun and not ended.

    Attributes:
        run: While its block runs, a run is underway.
        step: Likewise an engine step.
        level_step: Likewise a level step.
    """

    def __init__(self) -> None:
        self._begun: list[Part] = []
        self.run, self.step, self.level_step = (_Within(self._begun, part) for part in Part)

    def __iter__(self) -> Iterator[Part]:
        return iter(self._begun)

    def refuse_training(self, call: str, *parts: Part) -> None:
        """Refuse to train from within what trains.

        Args:
            call: What was called.
            parts: In which of them it cannot be.

        Raises:
            ProblemError: One of them is underway.
        """
        if not self._begun:
            return
        part = next((part for part in parts if part in self._begun), None)
        if part is not None:
            raise ProblemError(
                f"{call}: was called by a callback or a problem while {part.value} of this engine is underway, and "
                "would train on top of that. Call it where that has returned; to end a run from a callback, set "
                "engine.should_stop = True"
            )

    def refuse_checkpoint(self, call: str, why: str) -> None:
        """Refuse to save or to load in the middle of a level step.

        Args:
            call: What was called.
            why: What would come of it.

        Raises:
            ProblemError: One is underway.
        """
        if Part.LEVEL_STEP in self._begun:
            raise ProblemError(
                f"{call}: was called in the middle of a level step (in on_gradients, on_level_step or a problem's own "
                f"code); {why}. Call it in on_step_end or on_validation, or where engine.step() has returned"
            )


class _Within:
    """A class rather than a generator: each level step enters it."""

    __slots__ = ("_begun", "_part")

    def __init__(self, begun: list[Part], part: Part) -> None:
        self._begun = begun
        self._part = part

    def __enter__(self) -> None:
        self._begun.append(self._part)

    def __exit__(self, *error: object) -> None:
        self._begun.pop()
