"""Data selection: learn which training samples to keep, by sampling who is kept.

Below, a classifier minimises its loss over a random selection of its batch; above, a small net maps a sample's loss to
the probability that the sample is kept, and is trained so that the classifier does well on samples known to be clean.
Keeping or dropping has no derivative: ``type="reinforce"`` differentiates its expectation, and credits each choice with
the loss of its own sample. The two read each other by the names ``classifier`` and ``selection``.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli

from ..problem import Problem


class SelectedClassifier(Problem):
    """The lower: cross entropy of the samples that are kept, over all samples of the batch."""

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        inputs, labels = batch
        losses = F.cross_entropy(self.module(inputs), labels, reduction="none")
        keep = self.sample(Bernoulli(logits=self.selection(losses.detach())))
        return {"losses": keep * losses, "kept": keep.mean()}


class Selection(Problem):
    """The upper: cross entropy of the classifier on clean samples, as a function of the selecting net."""

    def training_step(self, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.classifier(inputs), labels)


class SelectionNet(nn.Module):
    """The logit of the probability that a sample is kept, given its loss: one hidden layer.

    Args:
        hidden: Its width.
    """

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, losses: Tensor) -> Tensor:
        """Logits of the same shape as ``losses``."""
        logits: Tensor = self.layers(losses.unsqueeze(-1))
        return logits.squeeze(-1)
