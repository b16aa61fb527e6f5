"""A problem of two levels, written once for everyone who solves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .case import Setting

LowerLoss: TypeAlias = Callable[[Any, Any, Any], Tensor]
UpperLoss: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Bilevel:
    """Modules, losses, optimizers and data of two levels. The upper loss reads the upper through the lower only.

    Attributes:
        setting: Where and at which size.
        lower: Makes the lower module, the same one at every call.
        upper: Makes the upper module.
        lower_loss: Of the lower module, the upper module and a batch.
        upper_loss: Of the lower module and a batch.
        lower_optimizer: Makes the lower's optimizer.
        upper_optimizer: Makes the upper's optimizer.
        batches: Of the lower and of the upper, each started over without end; ``None`` where there is no data.
        inner_steps: Lower steps for each upper step.
        applied: The lower module as a function of its parameters, as one writes it to unroll by hand.
        in_jax: Given the module ``jax``, the two losses of lists of arrays instead of modules.
        reduced: Compute the losses in bfloat16, by autocast.
    """

    setting: Setting
    lower: Callable[[], nn.Module]
    upper: Callable[[], nn.Module]
    lower_loss: LowerLoss
    upper_loss: UpperLoss
    lower_optimizer: Callable[[Iterable[Tensor]], Optimizer]
    upper_optimizer: Callable[[Iterable[Tensor]], Optimizer]
    batches: Callable[[], tuple[Sequence[Any] | None, Sequence[Any] | None]]
    inner_steps: int = 1
    applied: Callable[[Sequence[Tensor]], Any] | None = None
    in_jax: Callable[[Any], tuple[Callable[..., Any], Callable[..., Any]]] | None = None
    reduced: bool = False

    def endless(self) -> tuple[Iterator[Any], Iterator[Any]]:
        """The batches of the lower and of the upper, over and over."""
        lower, upper = self.batches()
        return cycle(lower or [None]), cycle(upper or [None])

    def in_precision(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The loss, under autocast where the precision is reduced."""
        if not self.reduced:
            return loss

        def cast(*arguments: Any) -> Tensor:
            with torch.autocast(self.setting.device.type, torch.bfloat16):
                return loss(*arguments)

        return cast
