"""Surrogates whose derivatives, of any order, estimate those of an expected loss over sampled choices.

For choices a ~ pi(a; theta, phi), the factor box = exp(log pi - stop(log pi)) has the value 1 and multiplies in the
score function at every derivative: d^n E[L] = E[d^n (box L)] (Foerster et al. 2018, arXiv 1802.05098; Williams 1992
for the score function). A baseline b that does not look at the choice leaves every expectation as it is:

    box (L - b) + b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .errors import ProblemError
from .objective import Evaluation

Baseline: TypeAlias = Literal["loo", "none"]


def surrogate(draws: Sequence[Evaluation], baseline: Baseline = "none") -> Tensor:
    """The mean of independent evaluations, each with the score of its own choices.

    Where an evaluation gives a loss per example (``losses``), each example is credited with its own choices alone: the
    expectation is the same, and the variance far lower.

    Args:
        draws: Evaluations under independent choices.
        baseline: ``"loo"`` compares each draw with the mean of the others (nothing to compare with, where there is one
            draw); ``"none"`` with zero.

    Returns:
        A scalar whose value is the mean loss.
    """
    losses = _stacked([draw.loss if draw.losses is None else draw.losses for draw in draws])
    boxes = torch.stack([_box(draw) for draw in draws])
    if baseline == "none" or len(draws) == 1:
        return (boxes * losses).mean()
    others = (losses.sum(0) - losses) / (len(draws) - 1)
    return (boxes * (losses - others) + others).mean()


def log_likelihood(evaluation: Evaluation) -> Tensor:
    """Log-probability of an evaluation's choices: a scalar, or one per example of ``evaluation.losses``.

    A choice whose log-probability has one row an example counts for its example; any other counts for all. A choice
    whose distribution depends on nothing that is differentiated is an ordinary random number and counts for none.
    """
    size = 0 if evaluation.losses is None else evaluation.losses.numel()
    total = evaluation.loss.new_zeros((size,) if size else ())
    for choice in evaluation.choices:
        if not choice.requires_grad:
            continue
        by_example = size > 0 and choice.dim() > 0 and choice.shape[0] == size
        total = total + (choice.reshape(size, -1).sum(1) if by_example else choice.sum())
    return total


def _stacked(losses: Sequence[Tensor]) -> Tensor:
    sizes = sorted({losses_of_draw.numel() for losses_of_draw in losses})
    if len(sizes) > 1:
        raise ProblemError(
            f"'losses' must hold as many examples in every draw, got {' and '.join(map(str, sizes))}: give an example "
            "that a choice leaves out a loss of zero"
        )
    return torch.stack(list(losses))


def _box(evaluation: Evaluation) -> Tensor:
    likelihood = log_likelihood(evaluation)
    if not torch.isfinite(likelihood.detach()).all():
        raise ProblemError(
            "a sampled choice has probability zero or a log-probability that is not a number: keep the distribution's "
            "probabilities away from 0 and 1"
        )
    return torch.exp(likelihood - likelihood.detach())
