"""What an optimizer minimises, where that is not the loss alone: weight decay, and ``maximize=True``.

Where the decay is a part of the gradient, as in ``SGD(weight_decay=w)``, the parameters come to rest where
grad L + w theta = 0: at a stationary point of L + w |theta|^2 / 2, whose Hessian is H + w I. A decoupled decay
(Loshchilov and Hutter 2019, arXiv 1711.05101) is divided by other numbers than the gradient is: no loss has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from .objective import Decay, Evaluation, Objective
from .tensors import Tensors

COUPLED = (SGD, ASGD, Adam, Adamax, NAdam, RAdam, Adadelta, Adagrad, RMSprop)
"""Optimizers that add their decay to the gradient, unless they are told to decouple it."""


def coupled_decay(optimizer: Optimizer, indices: Sequence[int | None]) -> Decay:
    """What an optimizer's decay adds to the diagonal of the Hessian of the loss.

    Args:
        optimizer: The optimizer.
        indices: Per parameter the index of its group, ``None`` where the optimizer does not hold it.
    """
    groups = optimizer.param_groups
    if not any([group.get("weight_decay") for group in groups]):
        return ()
    decay = [0.0 if i is None else _coupled(optimizer, groups[i]) for i in indices]
    return decay if any(decay) else ()


def has_decoupled_decay(optimizer: Optimizer) -> bool:
    """Whether it has a decay that :func:`coupled_decay` does not give."""
    return any(group.get("weight_decay") and not _is_coupled(optimizer, group) for group in optimizer.param_groups)


def maximizes(optimizer: Optimizer) -> bool:
    """Whether it ascends the loss."""
    return all(group.get("maximize") for group in optimizer.param_groups)


def goes_both_ways(optimizer: Optimizer) -> bool:
    """Whether it ascends the loss in some of its groups and descends it in others."""
    return not maximizes(optimizer) and any(group.get("maximize") for group in optimizer.param_groups)


def negated(objective: Objective) -> Objective:
    """The objective with the other sign: the loss that is minimised where one is maximised."""
    function, draw = objective.function, objective.draw

    def negative(solution: Tensors, inputs: Tensors) -> Evaluation:
        return _negative(function(solution, inputs))

    def negative_draw(solution: Tensors, inputs: Tensors, number: int) -> Sequence[Evaluation]:
        assert draw is not None
        return [_negative(evaluation) for evaluation in draw(solution, inputs, number)]

    return dataclasses.replace(
        objective,
        function=negative,
        draw=None if draw is None else negative_draw,
        decay=[-w for w in objective.decay],
    )


def _negative(evaluation: Evaluation) -> Evaluation:
    losses = evaluation.losses
    return evaluation._replace(loss=-evaluation.loss, losses=None if losses is None else -losses)


def _coupled(optimizer: Optimizer, group: Mapping[str, Any]) -> Any:
    if not _is_coupled(optimizer, group):
        return 0.0
    # Of a loss that is maximised: where parameters come to rest, grad L - w theta = 0.
    return -group["weight_decay"] if group.get("maximize") else group["weight_decay"]


def _is_coupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    kind = isinstance(optimizer, COUPLED) and not isinstance(optimizer, AdamW)
    return kind and not group.get("decoupled_weight_decay")
