"""Choices that a training step samples, remembered with their log-probabilities."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

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
        given: Whether it was made before, so that no other can be drawn in its place.
    """

    distribution: Distribution
    value: Tensor
    log_prob: Tensor
    given: bool = False


_active: ContextVar[tuple[tuple[Any, list[Choice]], ...]] = ContextVar("choices", default=())


class sampling:  # noqa: N801  used like a function; a generator would cost each evaluation another microsecond
    """Collect the choices made inside, where ``owner`` is being evaluated."""

    __slots__ = ("_owner", "_token")

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __enter__(self) -> list[Choice]:
        choices: list[Choice] = []
        self._token = _active.set((*_active.get(), (self._owner, choices)))
        return choices

    def __exit__(self, *error: object) -> None:
        _active.reset(self._token)


def sampled_so_far(owner: Any) -> tuple[Choice, ...] | None:
    """The choices that the running evaluation of ``owner`` made; ``None`` where there is none."""
    return next((tuple(choices) for other, choices in reversed(_active.get()) if other is owner), None)


def sample(distribution: Distribution, value: Tensor | None = None) -> Tensor:
    """Draw from a distribution, or take a choice that was made before; inside a training step, remember it.

    Raises:
        ProblemError: It is no ``torch.distributions`` object, or the given choice is not one of its samples in shape.
    """
    if not isinstance(distribution, Distribution):
        raise ProblemError(
            f"self.sample() takes a torch.distributions object, got {type(distribution).__name__}; "
            "for example torch.distributions.Bernoulli(logits=...)"
        )
    given = value is not None
    if value is None:
        with torch.no_grad():
            value = distribution.sample()
    elif value.shape != (expected := distribution.batch_shape + distribution.event_shape):
        raise ProblemError(
            f"self.sample(): the given value must have the shape of a sample, {tuple(expected)}, "
            f"got {tuple(value.shape)}"
        )
    value = value.detach()
    if running := _active.get():
        running[-1][1].append(Choice(distribution, value, distribution.log_prob(value), given))
    return value
