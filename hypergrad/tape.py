"""A recorded inner loop: what :class:`Unroll` differentiates in reverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .objective import Objective
from .tensors import Tensors


@dataclass(frozen=True)
class Step:
    """One optimizer step as it was taken.

    Attributes:
        objectives: The objectives of its micro-batches; the gradient is the mean of theirs. Each evaluates the loss of
            the recorded batch under the recorded random state.
        groups: The options of each of the optimizer's parameter groups at that moment (a schedule changes them),
            without the key ``"params"``.
        clipping: Largest gradient norm, 0 for no clipping.
    """

    objectives: tuple[Objective, ...]
    groups: tuple[dict[str, Any], ...]
    clipping: float = 0.0


@dataclass
class Tape:
    """The steps since the inner loop began.

    Attributes:
        start: The parameters when it began (copies).
        optimizer_state: The optimizer's state of each parameter when it began (copies), in the order of the
            parameters; an empty dict where it had none.
        initial: Computes ``start`` from the inputs, where the starting point depends on them (a meta-learned
            initialisation); ``None`` where it does not.
        steps: In the order taken.
    """

    start: Tensors
    optimizer_state: tuple[dict[str, Any], ...]
    initial: Callable[[Tensors], Tensors] | None = None
    steps: list[Step] = field(default_factory=list)
