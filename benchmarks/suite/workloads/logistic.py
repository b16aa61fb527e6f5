"""W1: logistic regression on digits with a strength of L2 for each pixel, which is fitted to other samples.

Ten full-batch gradient steps below for each step above.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from ..approaches import DARTS, UNROLL, cg, neumann
from ..bilevel import Bilevel
from ..case import Row, Setting
from ..data import CLASSES, PIXELS, Batch, digits
from ..rows import bilevel_row

RATE, UPPER_RATE, LOG_STRENGTH = 0.1, 10.0, -4.0


class Strengths(nn.Module):
    """The logarithm of each pixel's strength."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((PIXELS,), LOG_STRENGTH, device=setting.device, dtype=setting.dtype))


def classifier(setting: Setting) -> nn.Linear:
    """From zero."""
    module = nn.Linear(PIXELS, CLASSES, device=setting.device, dtype=setting.dtype)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Applied(NamedTuple):
    """The classifier as a function of its parameters."""

    weight: Tensor
    bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight, self.bias)


def lower_loss(model: Any, strengths: Any, batch: Batch) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels) + (strengths.log.exp() * model.weight.square()).sum() / 2


def upper_loss(model: Any, batch: Batch) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def in_jax(jax: Any) -> Any:
    """The losses once more."""

    def cross_entropy(lower: Any, batch: Any) -> Any:
        weight, bias = lower
        logits = jax.nn.log_softmax(batch[0] @ weight.T + bias)
        return -jax.numpy.take_along_axis(logits, batch[1][:, None], axis=1).mean()

    def penalised(lower: Any, upper: Any, batch: Any) -> Any:
        return cross_entropy(lower, batch) + (jax.numpy.exp(upper[0]) * lower[0] ** 2).sum() / 2

    return penalised, cross_entropy


def problem(setting: Setting) -> Bilevel:
    """What W1 solves."""

    def batches() -> tuple[list[Batch], list[Batch]]:
        train, held_out = digits(setting)
        return [train], [held_out]

    return Bilevel(
        setting=setting,
        lower=partial(classifier, setting),
        upper=partial(Strengths, setting),
        lower_loss=lower_loss,
        upper_loss=upper_loss,
        lower_optimizer=partial(SGD, lr=RATE),
        upper_optimizer=partial(SGD, lr=UPPER_RATE),
        batches=batches,
        inner_steps=10,
        applied=lambda parameters: Applied(*parameters),
        in_jax=in_jax,
    )


def rows(setting: Setting) -> list[Row]:
    """One row a method."""
    bilevel = problem(setting)
    return [bilevel_row("W1", bilevel, approach, error=True) for approach in (DARTS, neumann(5, RATE), cg(5), UNROLL)]
