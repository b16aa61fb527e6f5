"""Meta-Weight-Net: learn what a training sample should count, from its loss and a few samples known to be clean.

Shu, Xie, Yi, Zhao, Zhou, Xu and Meng 2019 (arXiv 1902.07379). Below, a classifier minimises its weighted loss; above, a
small net maps each loss to that weight, and is trained so that the classifier does well on the clean samples.
The two read each other by the names ``classifier`` and ``reweight``.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..problem import Problem


class Classifier(Problem):
    """The lower: cross entropy of noisy samples, each times its weight.

    The loss enters the weight as a number, without a derivative. So the gradient that this problem descends is not that
    of one function of all parameters, the mixed second derivative is not symmetric, and methods that take it by
    differencing the *upper's* gradient (``darts``, ``sama``) are far off. Use one that takes it by autograd:
    ``identity`` (which makes this the published algorithm, up to a factor), ``neumann``, ``cg``.
    """

    def training_step(self, batch: Any) -> Tensor:
        inputs, labels = batch
        losses = F.cross_entropy(self.module(inputs), labels, reduction="none")
        return (self.reweight(losses.detach()) * losses).mean()


class Plain(Problem):
    """The same without weights, to compare with."""

    def training_step(self, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.module(inputs), labels)


class Reweight(Problem):
    """The upper: cross entropy of the classifier on clean samples, as a function of the weights' net."""

    def training_step(self, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.classifier(inputs), labels)


class WeightNet(nn.Module):
    """A weight between 0 and 1 for each loss: one hidden layer, as published.

    Args:
        hidden: Its width.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())

    def forward(self, losses: Tensor) -> Tensor:
        """Weights of the same shape as ``losses``."""
        weights: Tensor = self.layers(losses.unsqueeze(-1))
        return weights.squeeze(-1)
