"""Whether a level step's numbers are finite, and where they stopped being so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..hypergrad.errors import NonFiniteError
from ..hypergrad.tensors import norm
from ..problems.problem import Problem
from .gradients import Gradients, LevelGradients


def check_finite(name: str, found: LevelGradients, loss: Tensor, gradients: Gradients, *, scaled: bool) -> None:
    """Refuse a loss or a gradient that is infinite or not a number. Makes the host wait for the device.

    Args:
        name: The problem.
        found: Its gradients.
        loss: Its loss.
        gradients: What computed them.
        scaled: Whether they are those of a scaled loss, whose overflow the scaler looks after.

    Raises:
        NonFiniteError: Naming the level, the edge, its method and the norms.
    """
    size = 0.0 if scaled else _size(found.total)
    value = loss.item()
    if abs(value) < float("inf") and size < float("inf"):
        return
    inside = gradients.relations.inside[name]
    through = ", ".join(f"{name} -> {m} by {gradients.hierarchy.method(m)}" for m in inside)
    raise NonFiniteError(
        f"problem '{name}': loss {value:g}, norm of its gradient {size:g}"
        + (f" (total, through {through})" if through else "")
        + f"; {_where(name, found, value, gradients)}. "
        "Lower the learning rate, clip (gradient_clipping), damp the method, or leave such batches out "
        "(EngineConfig(non_finite='skip'))"
    )


def diverged(problems: Iterable[Problem]) -> str | None:
    """The first problem with a parameter that is infinite or not a number. Makes the host wait for the device."""
    return next((p.name for p in problems if not all(bool(t.isfinite().all()) for t in p.parameters)), None)


def _where(name: str, found: LevelGradients, loss: float, gradients: Gradients) -> str:
    """The first place on the way from the loss to the gradient where a number is not finite."""
    if not abs(loss) < float("inf"):
        return "the loss itself is not finite"
    if not _size(found.direct) < float("inf"):
        return f"the direct gradient is not finite (norm {_size(found.direct):g})"
    for member, cotangent in found.cotangents.items():
        if not _size(cotangent) < float("inf"):
            return f"edge {name} -> {member}: the derivative of the loss with respect to '{member}' is not finite"
    for member, cotangent in found.cotangents.items():
        pulled = gradients.hierarchy.sweep(name, {member: cotangent})
        if pulled is not None and not _size(pulled) < float("inf"):
            return (
                f"edge {name} -> {member}: method {gradients.hierarchy.method(member)} of '{member}' made a cotangent "
                f"of norm {_size(cotangent):g} into a hypergradient of norm {_size(pulled):g}"
            )
    norms: Mapping[str, Sequence[Tensor | None]] = {"direct": found.direct, "through the lowers": found.swept or ()}
    return ", ".join(f"{part} {_size(tensors):g}" for part, tensors in norms.items())


def _size(tensors: Sequence[Tensor | None]) -> float:
    present = [t.coalesce().values() if t.is_sparse else t for t in tensors if t is not None]
    with torch.no_grad():
        return norm(present).item() if present else 0.0
