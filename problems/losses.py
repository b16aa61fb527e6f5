"""Reading what ``training_step`` returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import ProblemError
from ..hypergrad.objective import Evaluation

RESERVED = ("loss", "losses", "reward", "outputs")
"""Keys with a meaning; every other is a metric."""


def read_loss(name: str, result: Any, device: torch.device | None = None) -> tuple[Evaluation, dict[str, Tensor]]:
    """Split a result into the loss and the metrics.

    Args:
        name: The problem's name, for the error message.
        result: A scalar tensor, or a mapping with one of ``"loss"`` (a scalar), ``"losses"`` (one per example, whose
            mean is the loss) and ``"reward"`` (a scalar or one per example, whose negative mean is the loss),
            optionally the network's predictions under ``"outputs"``, and metrics.
        device: Where a reward is moved to (environments count in the host's memory).

    Returns:
        The evaluation, and the metrics (the loss among them) detached.

    Raises:
        ProblemError: There is no loss, or it has the wrong shape.
    """
    if isinstance(result, Tensor) and result.dim() == 0:  # the common case, in every evaluation
        return Evaluation(result), {"loss": result.detach()}
    given: Mapping[str, Any] = result if isinstance(result, Mapping) else {"loss": result}
    losses = _losses(name, given)
    losses = losses.to(device) if losses is not None and "reward" in given else losses
    loss = losses.mean() if losses is not None else _loss(name, given)
    shown = {"loss": loss.detach()}
    if "reward" in given:
        shown["reward"] = -loss.detach()
    for key, value in given.items():
        if key not in RESERVED:
            shown[key] = _metric(name, key, value)
    per_example = losses if losses is not None and losses.dim() == 1 else None
    return Evaluation(loss, given.get("outputs"), per_example), shown


def _losses(name: str, given: Mapping[str, Any]) -> Tensor | None:
    """What ``"losses"`` or ``"reward"`` says, as losses; ``None`` where neither is there."""
    keys = [key for key in ("loss", "losses", "reward") if key in given]
    if not keys:
        raise ProblemError(
            f"problem '{name}': training_step returned a mapping without 'loss', with keys {sorted(map(str, given))}; "
            "give it one of 'loss', 'losses' (one per example) and 'reward'"
        )
    if len(keys) > 1:
        raise ProblemError(
            f"problem '{name}': training_step returned {' and '.join(map(repr, keys))}; give one of them"
        )
    if keys == ["loss"]:
        return None
    value = given[keys[0]]
    value = value if isinstance(value, Tensor) else _metric(name, keys[0], value)
    if value.dim() > 1 or value.numel() == 0 or (keys == ["losses"] and value.dim() != 1):
        raise ProblemError(
            f"problem '{name}': '{keys[0]}' must hold one number per example, of shape (batch,), "
            f"got a tensor of shape {tuple(value.shape)}"
        )
    if keys == ["losses"]:
        return value
    return -(value if value.is_floating_point() else value.to(torch.get_default_dtype()))


def _loss(name: str, given: Mapping[str, Any]) -> Tensor:
    loss = given["loss"]
    if not isinstance(loss, Tensor):
        raise ProblemError(
            f"problem '{name}': training_step must return a scalar tensor, or a mapping with one under 'loss'; "
            f"got {'None (is a return missing?)' if loss is None else type(loss).__name__}"
        )
    if loss.numel() != 1:
        raise ProblemError(
            f"problem '{name}': the loss must be a scalar, got a tensor of shape {tuple(loss.shape)}; "
            "reduce it, for example with .mean()"
        )
    return loss.reshape(())


def _metric(name: str, key: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        # A parameter, or a view of one, would show what the step makes of it.
        is_own = value.grad_fn is None and value.requires_grad
        return value.detach().clone() if is_own or value._is_view() else value.detach()
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProblemError(
            f"problem '{name}': the metric '{key}' must be a tensor or a number, got {type(value).__name__}"
        ) from error
