"""Architecture choice: learn which operation each layer of a network should be, by sampling the operations.

Below, a network minimises its expected loss over architectures drawn for each sample; above, the probabilities of the
operations are trained so that the network does well on validation samples, under architectures drawn in the same way.
An operation is there or not, which has no derivative: above it is that of the score function
(``Config(estimator="score")``), and what the trained network owes to the probabilities comes by ``type="reinforce"``.
The two read each other by the names ``network`` and ``architecture``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical

from ..problem import Problem

OPERATIONS = ("dense relu", "dense tanh", "conv relu", "blur", "skip")
SIDE = 8
"""Pixels of an image's side."""


class SampledNetwork(Problem):
    """The lower: cross entropy of training samples, each under an architecture of its own."""

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        inputs, labels = batch
        choices = self.sample(self.architecture(len(inputs)))
        return {"losses": F.cross_entropy(self.module(inputs, choices), labels, reduction="none")}


class Architecture(Problem):
    """The upper: cross entropy of validation samples, each under an architecture of its own."""

    def forward(self, samples: int) -> Categorical:
        """The distribution of the operations, of shape (samples, layers)."""
        logits: Tensor = self.module()
        return Categorical(logits=logits.expand(samples, *logits.shape))

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        inputs, labels = batch
        policy = self(len(inputs))
        losses = F.cross_entropy(self.network(inputs, self.sample(policy)), labels, reduction="none")
        # Compared with the other samples, whose choices are independent: the same expectation, with less variance.
        others = (losses.sum() - losses).detach() / (len(losses) - 1)
        return {"losses": losses - others, "validation loss": losses.mean(), "entropy": policy.entropy().mean()}


class FixedNetwork(Problem):
    """The lower with one architecture for all samples, to compare with.

    Args:
        choice: The number of each layer's operation.
    """

    def __init__(self, name: str, *, choice: Sequence[int], **parts: Any) -> None:
        super().__init__(name, **parts)
        self.choice = tuple(choice)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs, self.choice)
        return logits

    def training_step(self, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(self(inputs), labels)


class OperationLogits(nn.Module):
    """A logit for each operation of each layer; all operations are equally likely at first.

    Args:
        layers: How many layers there are to choose for.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers, len(OPERATIONS)))

    def forward(self) -> Tensor:
        """Of shape (layers, operations)."""
        return self.logits


class ChoiceNet(nn.Module):
    """A classifier of 8 x 8 images whose layers have every operation to choose from, each with weights of its own.

    Args:
        layers: Between the first convolution and the last linear layer.
        channels: Of the images between them.
        classes: How many there are.
    """

    def __init__(self, layers: int, channels: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.layers = nn.ModuleList(nn.ModuleList(_operations(channels)) for _ in range(layers))
        self.last = nn.Linear(channels * SIDE**2, classes)

    def forward(self, inputs: Tensor, choices: Tensor | Sequence[int]) -> Tensor:
        """Class logits.

        Args:
            inputs: Images of shape (samples, 64).
            choices: The number of the operation, of shape (samples, layers); or one a layer, for all samples.
        """
        hidden = self.first(inputs.reshape(-1, 1, SIDE, SIDE)).relu()
        for i, operations in enumerate(self.layers):
            hidden = _apply(operations, hidden, choices[:, i] if isinstance(choices, Tensor) else choices[i])
        logits: Tensor = self.last(hidden.flatten(1))
        return logits


def _operations(channels: int) -> list[nn.Module]:
    """In the order of ``OPERATIONS``."""
    size = channels * SIDE**2
    shape = nn.Unflatten(1, (channels, SIDE, SIDE))
    return [
        nn.Sequential(nn.Flatten(), nn.Linear(size, size), nn.ReLU(), shape),
        nn.Sequential(nn.Flatten(), nn.Linear(size, size), nn.Tanh(), shape),
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.Identity(),
    ]


def _apply(operations: Any, hidden: Tensor, choice: Tensor | int) -> Tensor:
    if isinstance(choice, int):
        only: Tensor = operations[choice](hidden)
        return only
    results = torch.stack([operation(hidden) for operation in operations])
    return results[choice, torch.arange(len(hidden), device=hidden.device)]
