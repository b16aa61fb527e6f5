"""Reading what ``training_step`` returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import ProblemError
from ..hypergrad.objective import Evaluation


def read_loss(name: str, result: Any) -> tuple[Evaluation, dict[str, Tensor]]:
    """Split a result into the loss and the metrics.

    Args:
        name: The problem's name, for the error message.
        result: A scalar tensor, or a mapping with the loss under ``"loss"``, optionally the network's predictions under
            ``"outputs"``, and metrics.

    Returns:
        The evaluation, and the metrics (the loss among them) detached.

    Raises:
        ProblemError: There is no loss, or it is not a scalar tensor.
    """
    metrics: Mapping[str, Any] = {}
    loss, outputs = result, None
    if isinstance(result, Mapping):
        if "loss" not in result:
            raise ProblemError(
                f"problem '{name}': training_step returned a mapping without 'loss', with keys {sorted(result)}"
            )
        metrics, loss, outputs = result, result["loss"], result.get("outputs")
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
    loss = loss.reshape(())
    shown = {"loss": loss.detach()}
    for key, value in metrics.items():
        if key not in ("loss", "outputs"):
            shown[key] = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    return Evaluation(loss, outputs), shown
