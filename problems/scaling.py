"""Scaling losses, so that gradients in half precision do not underflow (Micikevicius et al. 2018, arXiv 1710.03740)."""

from __future__ import annotations

from torch.amp import GradScaler

from ..hypergrad.errors import ConfigError
from ..hypergrad.tensors import Tensors


def loss_scaler(name: str, precision: str, parameters: Tensors, *, closure: bool) -> GradScaler | None:
    """The scaler of a problem's losses; ``None`` where its precision needs none.

    The gradient of the scaled loss, and with it the cotangents of the problems below and what a method makes of them,
    are all linear in the scale: unscaling the sum once covers hypergradients too.

    Args:
        name: The problem's name, for the error message.
        precision: ``Config.precision``.
        parameters: What the gradients are of.
        closure: Whether the optimizer evaluates the loss by itself.

    Raises:
        ConfigError: The scaled steps of such a problem cannot be checked for overflow.
    """
    if precision != "fp16":
        return None
    if closure:
        raise ConfigError(
            f"problem '{name}': precision='fp16' scales losses, which does not work with an optimizer that evaluates "
            "its loss by itself; use 'bf16' or 'fp32', or another optimizer"
        )
    low = sorted({str(p.dtype) for p in parameters if p.dtype.itemsize < 4})
    if low:
        raise ConfigError(
            f"problem '{name}': precision='fp16' keeps parameters in full precision and computes in half; its "
            f"parameters are {', '.join(low)}; leave the module as it was built"
        )
    return GradScaler(parameters[0].device.type)
