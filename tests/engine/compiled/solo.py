"""Engines of one problem, for laws that take no second level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multilevel import Callback, Config, Engine, EngineConfig

from ...givens import Given, Loss, Vector
from .twins import Build


def base(problem: Given) -> Tensor:
    """Half the squared norm."""
    return problem.module().square().sum() / 2


def solo(
    loss: Loss,
    module: Callable[[], nn.Module] = lambda: Vector(1.0, 2.0),
    data: Callable[[], Sequence[Any]] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    attributes: Callable[[Given], dict[str, Any]] = lambda problem: {},
    cls: type[Given] = Given,
    **settings: Any,
) -> Build:
    """An engine of the problem ``fit``.

    Args:
        loss: Its loss.
        module: Makes its module.
        data: Makes its batches.
        optimizer: Makes its optimizer.
        attributes: What else it has.
        cls: Its class.
        settings: Its settings.
    """

    def build(config: EngineConfig, callbacks: Sequence[Callback]) -> Engine:
        torch.manual_seed(1)
        inner = module()
        problem = cls(
            "fit",
            loss,
            inner,
            optimizer=optimizer(inner.parameters()) if optimizer is not None else None,
            train_data_loader=data() if data is not None else None,
            config=Config(**settings),
        )
        vars(problem).update(attributes(problem))
        return Engine([problem], config=config, callbacks=callbacks)

    return build
