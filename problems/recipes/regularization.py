"""A strength of L2 regularisation for every feature, chosen by how well the regularised model validates.

Below, logistic regression; above, the logarithms of the strengths. The two read each other by the names ``classifier``
and ``regularizer``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..problem import Problem


class RegularizedClassifier(Problem):
    """The lower: binary cross entropy of a linear module, plus the penalty on its weights."""

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        fit = binary_loss(self.module, batch)
        return {"loss": fit + self.regularizer(self.module.weight), "fit": fit}


class Regularizer(Problem):
    """The upper: binary cross entropy of the classifier on validation samples, as a function of the strengths."""

    def training_step(self, batch: Any) -> Tensor:
        return binary_loss(self.classifier, batch)


class UniformlyRegularized(Problem):
    """The lower with one fixed strength for all features, to compare with.

    Args:
        strength: 0 for none.
    """

    def __init__(self, name: str, *, strength: float, **parts: Any) -> None:
        super().__init__(name, **parts)
        self.strength = strength

    def training_step(self, batch: Any) -> Tensor:
        penalty: Tensor = self.strength * self.module.weight.square().sum()
        return binary_loss(self.module, batch) + penalty


LARGEST = 2.0
"""Of the logarithms: it leaves next to nothing of a weight; more would make the lower's loss too steep to descend."""


class FeatureL2(nn.Module):
    """sum over features i of exp(s_i) w_i^2; the exponential keeps a strength positive.

    Args:
        features: How many there are.
        start: s_i to begin with.
    """

    def __init__(self, features: int, start: float = -3.0) -> None:
        super().__init__()
        self.log_strength = nn.Parameter(torch.full((features,), start))

    def forward(self, weight: Tensor) -> Tensor:
        """The penalty on the weights of a linear module, of shape (outputs, features)."""
        return (self.log_strength.clamp(max=LARGEST).exp() * weight.square()).sum()


def binary_loss(model: Any, batch: Any) -> Tensor:
    """Mean cross entropy of a model with one output a sample, for labels 0 and 1."""
    inputs, labels = batch
    return F.binary_cross_entropy_with_logits(model(inputs).squeeze(-1), labels)
