"""The engine of the selection recipe: test accuracy, and a report that compares with weights and with neither."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs import Config, EngineConfig
from ...problems.recipes.noisy_labels import NoisyLabels
from ...problems.recipes.reweighting import Classifier, Plain, Reweight, WeightNet
from ...problems.recipes.selection import SelectedClassifier, Selection
from ...problems.to_device import to_device
from ..engine import Engine
from ..modes import evaluation_mode
from .accuracy import accuracy
from .alone import Start, only, train_alone


class SelectionEngine(Engine):
    """Runs a :class:`SelectedClassifier` below a :class:`Selection`.

    Args:
        test: Batches (inputs, labels) that nothing is trained on.
        engine: The arguments of :class:`Engine`.

    Raises:
        ConfigError: There is not exactly one problem of each of the two classes.
    """

    def __init__(self, *engine: Any, test: Iterable[Any], **settings: Any) -> None:
        super().__init__(*engine, **settings)
        self.test = test
        self._classifier, self._selection = only(self, SelectedClassifier), only(self, Selection)
        self._start = Start(self._classifier)
        self._clean_start = Start(self._selection)

    def validation(self) -> dict[str, float]:
        """Accuracy on the test samples."""
        return {"test accuracy": accuracy(self._classifier, self.test)}

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Test accuracy against that of the same net trained as long with learned weights, and on all samples.

        The net starts from the same parameters each time and sees the same batches in the same order.
        """
        return {
            "accuracy (selected)": accuracy(self._classifier, self.test),
            "accuracy (Meta-Weight-Net)": self._accuracy_with_weights(),
            "accuracy (plain)": self._accuracy_on_all(),
            **self._kept(),
        }

    def _accuracy_on_all(self) -> float:
        with self._start.parts() as parts:
            plain = Plain("plain", **parts)
            train_alone(plain, self.step_count, self.config.device)
            return accuracy(plain, self.test)

    def _accuracy_with_weights(self) -> float:
        """The weights are learned as in the shipped experiment ``reweight-digits``."""
        settings = self._classifier.config
        with self._start.parts() as parts, self._clean_start.parts() as above:
            parts["config"] = Config(
                type="identity", unroll_steps=settings.unroll_steps, warmup_steps=settings.warmup_steps
            )
            classifier = Classifier("classifier", **parts)
            net = WeightNet()
            reweight = Reweight(
                "reweight",
                module=net,
                optimizer=torch.optim.Adam(net.parameters(), lr=0.003),
                train_data_loader=above["train_data_loader"],
            )
            config = EngineConfig(train_iters=self.step_count, device=self.config.device)
            Engine([reweight, classifier], edges=[(reweight, classifier)], config=config).run()
            return accuracy(classifier, self.test)

    def _kept(self) -> dict[str, float]:
        """How likely samples with right and with wrong labels are kept, where it is known which are which."""
        dataset = getattr(self._classifier.train_data_loader, "dataset", None)
        if not isinstance(dataset, NoisyLabels):
            return {}
        probabilities, wrong = self._probabilities(dataset), dataset.corrupted
        return {
            "probability kept (right label)": probabilities[~wrong].mean().item(),
            "probability kept (wrong label)": probabilities[wrong].mean().item(),
        }

    def _probabilities(self, dataset: NoisyLabels) -> Tensor:
        with evaluation_mode([self._classifier.module, self._selection.module]):
            inputs, labels = to_device(dataset.tensors, self._classifier.device)
            losses = F.cross_entropy(self._classifier(inputs), labels, reduction="none")
            probabilities: Tensor = self._selection(losses).sigmoid().cpu()
            return probabilities
