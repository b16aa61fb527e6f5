"""Ways to differentiate a best response: the library's method, and the same written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch.optim import Optimizer

from multilevel import CG, Darts, Identity, Method, Neumann, Sama, Unroll

from . import by_hand
from .bilevel_loop import Hypergradient


@dataclass(frozen=True)
class Approach:
    """One way.

    Attributes:
        label: What the table calls it.
        method: The library's method.
        by_hand: The same by hand, given the lower's optimizer; ``None`` where the inner loop itself is differentiated.
    """

    label: str
    method: Method
    by_hand: Callable[[Optimizer], Hypergradient] | None


DARTS = Approach("darts", Darts(), lambda optimizer: by_hand.darts)
IDENTITY = Approach("identity", Identity(), lambda optimizer: by_hand.identity)
SAMA = Approach("sama", Sama(), lambda optimizer: partial(by_hand.sama, optimizer=optimizer))
UNROLL = Approach("unroll", Unroll(), None)


def neumann(iterations: int, alpha: float) -> Approach:
    """So many products."""
    hand = partial(by_hand.neumann, iterations=iterations, alpha=alpha)
    return Approach(f"neumann {iterations}", Neumann(iterations=iterations, alpha=alpha), lambda optimizer: hand)


def cg(iterations: int) -> Approach:
    """So many products, if the residual is not zero before."""
    hand = partial(by_hand.cg, iterations=iterations)
    return Approach(f"cg {iterations}", CG(iterations=iterations), lambda optimizer: hand)
