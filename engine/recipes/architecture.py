"""The engine of the architecture recipe: what is most likely so far, and a report that compares with random choices."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...problems.recipes.architecture import OPERATIONS, Architecture, FixedNetwork, SampledNetwork
from ..engine import Engine
from .accuracy import accuracy
from .alone import Start, only, train_alone


class ArchitectureEngine(Engine):
    """Runs a :class:`SampledNetwork` below an :class:`Architecture`.

    Args:
        test: Batches (inputs, labels) that nothing is trained on.
        random_choices: How many random architectures the report compares with.
        engine: The arguments of :class:`Engine`.

    Attributes:
        found: The name of each layer's most likely operation.

    Raises:
        ConfigError: There is not exactly one problem of each of the two classes.
    """

    def __init__(self, *engine: Any, test: Iterable[Any], random_choices: int = 8, **settings: Any) -> None:
        super().__init__(*engine, **settings)
        self.test = test
        self.random_choices = random_choices
        self._network, self._architecture = only(self, SampledNetwork), only(self, Architecture)
        self._start = Start(self._network)

    @property
    def found(self) -> tuple[str, ...]:
        return tuple(OPERATIONS[i] for i in self._choice())

    def validation(self) -> dict[str, Any]:
        """Test accuracy of the most likely architecture, with the weights that all share, and how likely it is."""
        choice = self._choice()
        shared = accuracy(self._network, self.test, lambda inputs: self._network.module(inputs, choice))
        probabilities = self._architecture(1).probs[0].max(dim=-1).values
        return {"test accuracy (shared weights)": shared, "found": self.found, "probabilities": probabilities}

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Test accuracy of the architecture found against random ones, each trained alone; writes ``architecture.txt``.

        All start from the same weights, and see as many batches as the search did, in the same order.
        """
        (run_dir / "architecture.txt").write_text("\n".join(self.found) + "\n", encoding="utf-8")
        layers, chance = len(self._choice()), random.Random(self.config.seed)
        choices = [[chance.randrange(len(OPERATIONS)) for _ in range(layers)] for _ in range(self.random_choices)]
        accuracies = [self._alone(choice) for choice in choices]
        return {
            "accuracy (found)": self._alone(self._choice()),
            "accuracy (random, mean)": statistics.fmean(accuracies),
            "accuracy (random, worst)": min(accuracies),
            "accuracy (random, best)": max(accuracies),
        }

    def _choice(self) -> list[int]:
        choice: list[int] = self._architecture(1).probs[0].argmax(dim=-1).tolist()
        return choice

    def _alone(self, choice: Sequence[int]) -> float:
        with self._start.parts() as parts:
            network = FixedNetwork("alone", choice=choice, **parts)
            train_alone(network, self.step_count, self.config.device)
            return accuracy(network, self.test)
