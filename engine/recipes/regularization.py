"""The engine of the regularisation recipe: test loss and accuracy, and a report that compares with simpler choices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ...problems.recipes.regularization import RegularizedClassifier, Regularizer, UniformlyRegularized, binary_loss
from ...problems.to_device import to_device
from ..engine import Engine
from ..modes import evaluation_mode
from .alone import Start, only, train_alone

UNIFORM = tuple(10.0**exponent for exponent in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))
"""Strengths that one for all features is chosen from."""


class RegularizationEngine(Engine):
    """Runs a :class:`RegularizedClassifier` below a :class:`Regularizer`.

    Args:
        test: Batches (inputs, labels) that neither level is trained on.
        engine: The arguments of :class:`Engine`.

    Raises:
        ConfigError: There is not exactly one problem of each of the two classes.
    """

    def __init__(self, *engine: Any, test: Iterable[Any], **settings: Any) -> None:
        super().__init__(*engine, **settings)
        self.test = test
        self._classifier = only(self, RegularizedClassifier)
        self._validation = only(self, Regularizer).train_data_loader
        self._start = Start(self._classifier)

    def validation(self) -> dict[str, float]:
        """Loss and accuracy on the test samples, and the loss on those that the strengths are chosen by."""
        loss, accuracy = self._measure(self.test)
        return {"test loss": loss, "test accuracy": accuracy, "validation loss": self._measure(self._validation)[0]}

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Test loss and accuracy, against the same model trained as long without a penalty and with a uniform one.

        The uniform strength is the one on a grid with the least validation loss, on the same samples by which the
        strengths by feature are chosen.
        """
        _, *by_feature = self._measured()
        _, *none = self._alone(0.0)
        _, *uniform = min(self._alone(strength) for strength in UNIFORM)
        report = {}
        for i, metric in enumerate(("test loss", "test accuracy")):
            report[f"{metric} (by feature)"] = by_feature[i]
            report[f"{metric} (best uniform)"] = uniform[i]
            report[f"{metric} (none)"] = none[i]
        return report

    def _alone(self, strength: float) -> tuple[float, float, float]:
        with self._start.parts() as parts:
            problem = UniformlyRegularized("alone", strength=strength, **parts)
            train_alone(problem, self.step_count, self.config.device)
            return self._measured()

    def _measured(self) -> tuple[float, float, float]:
        """Validation loss, test loss, test accuracy."""
        with evaluation_mode([self._classifier.module]):
            return self._measure(self._validation)[0], *self._measure(self.test)

    def _measure(self, batches: Iterable[Any]) -> tuple[float, float]:
        """Mean loss and accuracy."""
        total, loss, right = 0, 0.0, 0.0
        for batch in batches:
            inputs, labels = to_device(batch, self._classifier.device)
            decided = self._classifier(inputs).squeeze(-1) > 0
            loss += binary_loss(self._classifier, (inputs, labels)).item() * len(labels)
            right += (decided == labels.to(torch.bool)).sum().item()
            total += len(labels)
        return loss / total, right / total
