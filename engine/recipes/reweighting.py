"""The engine of the reweighting recipe: test accuracy, and a report that compares with training without weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...problems.recipes.extras import extra
from ...problems.recipes.noisy_labels import NoisyLabels
from ...problems.recipes.reweighting import Classifier, Plain, Reweight
from ...problems.to_device import to_device
from ..engine import Engine
from ..modes import evaluation_mode
from .accuracy import accuracy
from .alone import Start, only, train_alone
from .weights_picture import WeightedSamples, save_weights_picture

PICTURE = "weights.png"


class ReweightingEngine(Engine):
    """Runs a :class:`Classifier` below a :class:`Reweight`.

    Args:
        test: Batches (inputs, labels) that nothing is trained on.
        engine: The arguments of :class:`Engine`.

    Raises:
        ConfigError: There is not exactly one problem of each of the two classes, or matplotlib is not installed.
    """

    def __init__(self, *engine: Any, test: Iterable[Any], **settings: Any) -> None:
        super().__init__(*engine, **settings)
        extra("matplotlib", "the picture of the weights")  # now rather than after the run
        self.test = test
        self._classifier = only(self, Classifier)
        self._reweight = only(self, Reweight)
        self._start = Start(self._classifier)

    def validation(self) -> dict[str, float]:
        """Accuracy of the classifier on the test samples, and on the clean ones that the weights are trained on."""
        return {
            "test accuracy": self._accuracy(self.test),
            "clean accuracy": self._accuracy(self._reweight.train_data_loader),
        }

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Test accuracy against that of the same net trained as long without weights; writes ``weights.png``.

        The net starts from the same parameters and sees the same batches in the same order. That trained on the clean
        samples only shows what the noisy ones are worth.
        """
        reweighted = self._accuracy(self.test)
        accuracies = {
            "accuracy (reweighted)": reweighted,
            "accuracy (plain)": self._accuracy_without_weights(),
            "accuracy (clean samples only)": self._accuracy_without_weights(self._reweight.train_data_loader),
        }
        samples = self._weighted_samples()
        if samples is None:
            return accuracies
        save_weights_picture(samples, self._weights, run_dir / PICTURE)
        wrong = samples.corrupted
        return {
            **accuracies,
            "mean weight (right label)": samples.weights[~wrong].mean().item(),
            "mean weight (wrong label)": samples.weights[wrong].mean().item(),
        }

    def _accuracy_without_weights(self, loader: Any = None) -> float:
        with self._start.parts() as parts:
            if loader is not None:
                parts["train_data_loader"] = loader
            train_alone(Plain("plain", **parts), self.step_count, self.config.device)
            return self._accuracy(self.test)

    def _accuracy(self, batches: Iterable[Any]) -> float:
        return accuracy(self._classifier, batches)

    def _weighted_samples(self) -> WeightedSamples | None:
        """Every training sample's loss and weight, where it is known which labels are wrong."""
        dataset = getattr(self._classifier.train_data_loader, "dataset", None)
        if not isinstance(dataset, NoisyLabels):
            return None
        with evaluation_mode([self._classifier.module, self._reweight.module]):
            inputs, labels = to_device(dataset.tensors, self._classifier.device)
            losses = F.cross_entropy(self._classifier(inputs), labels, reduction="none").cpu()
            return WeightedSamples(losses, self._weights(losses), dataset.corrupted)

    def _weights(self, losses: Tensor) -> Tensor:
        with torch.no_grad():
            weights: Tensor = self._reweight(losses.to(self._reweight.device))
            return weights.cpu()
