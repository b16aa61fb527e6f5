"""Choices that a training step samples, remembered with their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..hypergrad.errors import ProblemError


@dataclass(frozen=True)
class Choice:
    """One sampled choice.

    Attributes:
        distribution: What it was drawn from, for example to add its entropy to an upper's loss.
        value: What came; no gradient flows through it.
        log_prob: Its log-probability, of the distribution's batch shape, with a graph to what the distribution depends
            on.
    """

    distribution: Distribution
    value: Tensor
    log_prob: Tensor


_active: ContextVar[list[Choice] | None] = ContextVar("choices", default=None)


@contextmanager
def sampling() -> Iterator[list[Choice]]:
    """Collect the choices made inside."""
    choices: list[Choice] = []
    token = _active.set(choices)
    try:
        yield choices
    finally:
        _active.reset(token)


def sample(distribution: Distribution) -> Tensor:
    """Draw from a distribution; inside a training step, remember the choice.

    Raises:
        ProblemError: It is no ``torch.distributions`` object.
    """
    if not isinstance(distribution, Distribution):
        raise ProblemError(
            f"self.sample() takes a torch.distributions object, got {type(distribution).__name__}; "
            "for example torch.distributions.Bernoulli(logits=...)"
        )
    with torch.no_grad():
        value = distribution.sample()
    choices = _active.get()
    if choices is not None:
        choices.append(Choice(distribution, value, distribution.log_prob(value)))
    return value
