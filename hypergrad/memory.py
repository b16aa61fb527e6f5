"""What methods remember from one upper step to the next, under ``<method>.<what>`` in :attr:`Linearization.state`.

Only a pull back that is not differentiated again ends an upper step. The solves of nested levels read the memory and
never let it grow older: two sides of one finite difference must see the same approximation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .objective import State
from .precision import like
from .tensors import Tensors


def recall(state: State, key: str, model: Sequence[Tensor]) -> Tensors | None:
    """The remembered tensors with the dtypes and devices of ``model``; ``None`` where shapes no longer match."""
    kept: Tensors | None = state.get(key)
    if kept is None or [t.shape for t in kept] != [t.shape for t in model]:
        return None
    return like(kept, model)


def forget_after(state: State, owner: str, uses: int, *keys: str) -> None:
    """End an upper step: after every ``uses`` of them, drop ``keys`` and count one renewal more."""
    used = int(state.get(f"{owner}.uses", 0)) + 1
    if used >= uses:
        for key in keys:
            state.pop(key, None)
        state[f"{owner}.renewals"] = renewals(state, owner) + 1
        used = 0
    state[f"{owner}.uses"] = used


def renewals(state: State, owner: str) -> int:
    """How often :func:`forget_after` has dropped the owner's memory."""
    return int(state.get(f"{owner}.renewals", 0))
