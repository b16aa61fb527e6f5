"""The hierarchies of the conformance table, each at its solution."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .oracles import Edges, Hierarchy, Values, difference_gradient, settled

MIX = torch.tensor([[0.9, 0.4], [-0.3, 0.7]], dtype=torch.float64)
"""Couples the entries of two vectors, so that no Hessian is diagonal."""


def random_tensor(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_spectrum(eigenvalues: list[float], seed: int) -> Tensor:
    basis, _ = torch.linalg.qr(random_tensor(len(eigenvalues), len(eigenvalues), seed=seed))
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT


def _bilevel(lower: Callable[[Values], Tensor], upper: Callable[[Values], Tensor], sizes: tuple[int, int]) -> Hierarchy:
    start = {"top": random_tensor(sizes[0], seed=1) / 2, "low": torch.zeros(sizes[1], dtype=torch.float64)}
    both: Edges = (("top", "low"),)
    return Hierarchy({"top": upper, "low": lower}, start, both, both)


def quadratic(eigenvalues: tuple[float, ...] = (0.3, 0.6, 1.1, 1.5, 1.8)) -> Hierarchy:
    """x' A x / 2 - x' B phi below, |x - 1|^2 / 2 above."""
    n = len(eigenvalues)
    A, B = with_spectrum(list(eigenvalues), 2), random_tensor(n, 3, seed=3)
    return _bilevel(
        lambda v: v["low"] @ A @ v["low"] / 2 - v["low"] @ B @ v["top"],
        lambda v: (v["low"] - 1).square().sum() / 2,
        (3, n),
    )


def ill_conditioned() -> Hierarchy:
    """The same with eigenvalues from 1e-4 to 1."""
    return quadratic((1e-4, 1e-3, 1e-2, 1e-1, 1.0))


def direct_term() -> Hierarchy:
    """Nonlinear, with an upper loss that reads its own vector as well."""
    A, B = with_spectrum([0.5, 0.8, 1.2], 4), random_tensor(3, 2, seed=5)

    def lower(v: Values) -> Tensor:
        return v["low"] @ A @ v["low"] / 2 + torch.cosh(v["low"] - B @ v["top"]).sum() / 2

    def upper(v: Values) -> Tensor:
        return (v["low"] - 1).square().sum() + v["top"].square().sum() + (v["low"] * (B @ v["top"])).sin().sum()

    return _bilevel(lower, upper, (2, 3))


def logistic() -> Hierarchy:
    """Ten features of breast_cancer, one weight exp(lambda) of the L2 penalty for each, chosen on held-out rows."""
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    features = torch.tensor(inputs[:, :10])
    features = (features - features.mean(0)) / features.std(0)
    signs = torch.tensor(labels * 2.0 - 1)

    def risk(weights: Tensor, rows: slice) -> Tensor:
        return softplus(-signs[rows] * (features[rows] @ weights)).mean()

    def lower(v: Values) -> Tensor:
        return risk(v["low"], slice(0, 200)) + (v["top"].exp() * v["low"].square()).sum() / 2

    return _bilevel(lower, lambda v: risk(v["low"], slice(200, 400)), (10, 10))


def nonlinear_three() -> Hierarchy:
    """Three levels, each reading both others."""
    U, V, W = random_tensor(2, 3, seed=6) / 2, random_tensor(2, 2, seed=7) / 2, random_tensor(3, 2, seed=8) / 2

    def low(v: Values) -> Tensor:
        z, y, x = v["low"], v["mid"], v["top"]
        return z.square().sum() / 2 + torch.cosh(z - torch.tanh(U @ y)).sum() / 2 - z @ (V @ x).sin()

    def mid(v: Values) -> Tensor:
        z, y, x = v["low"], v["mid"], v["top"]
        return (
            (y - W @ x).square().sum() / 2 + torch.tanh(U @ y) @ z / 2 + z.square().sum() / 3 + (y.sin() @ (W @ x)) / 3
        )

    def top(v: Values) -> Tensor:
        z, y, x = v["low"], v["mid"], v["top"]
        return x.square().sum() / 3 + (y - 1).square().sum() + z @ (U @ y) + (z * x).cos().sum()

    start = {"top": torch.tensor([0.7, -0.4]), "mid": torch.zeros(3), "low": torch.zeros(2)}
    edges: Edges = (("top", "mid"), ("mid", "low"), ("top", "low"))
    return Hierarchy({"top": top, "mid": mid, "low": low}, start, edges, edges)


def pure_response() -> Hierarchy:
    """The top reaches the middle's solution only through the lowest's response: mid = |y|^2 / 2 + x z."""

    def low(v: Values) -> Tensor:
        return v["low"].square().sum() / 4 + torch.cosh(v["low"] - MIX @ v["mid"]).sum()

    start = {"top": torch.tensor([0.7, -0.4]), "mid": torch.zeros(2), "low": torch.zeros(2)}
    edges: Edges = (("top", "mid"), ("mid", "low"))
    return Hierarchy(
        {
            "top": lambda v: (v["mid"] - 1).square().sum() / 2,
            "mid": lambda v: v["mid"].square().sum() / 2 + v["top"] @ v["low"],
            "low": low,
        },
        start,
        edges,
        edges,
    )


def four_levels() -> Hierarchy:
    """A chain in which each level constrains and reads the next."""

    def d(v: Values) -> Tensor:
        return v["d"].square().sum() / 2 + torch.cosh(MIX @ v["d"] - torch.tanh(v["c"])).sum() / 2

    def c(v: Values) -> Tensor:
        return (v["c"] - MIX @ v["b"]).square().sum() / 2 + v["c"].sin() @ MIX @ v["d"] / 3 + v["d"].square().sum() / 4

    def b(v: Values) -> Tensor:
        return (
            (v["b"] - MIX @ v["a"].sin()).square().sum() / 2
            + v["c"].square().sum() / 4
            + v["b"].cos() @ MIX @ v["c"] / 4
        )

    def a(v: Values) -> Tensor:
        return (v["a"] - 1).square().sum() / 2 + (v["b"] * v["a"]).sum() + v["b"].square().sum()

    start = {"a": torch.tensor([0.6, -0.9]), **{k: torch.zeros(2) for k in "bcd"}}
    edges: Edges = (("a", "b"), ("b", "c"), ("c", "d"))
    return Hierarchy({"a": a, "b": b, "c": c, "d": d}, start, edges, edges)


def diamond() -> Hierarchy:
    """Two problems read one below; one of the two constrains it as well, so that it responds to that one."""

    def low(v: Values) -> Tensor:
        return v["low"].square().sum() / 2 + torch.cosh(MIX @ v["low"] - v["left"]).sum() / 2

    def left(v: Values) -> Tensor:
        return (
            (v["left"] - v["top"]).square().sum() / 2
            + v["left"].sin() @ MIX @ v["low"] / 3
            + v["low"].square().sum() / 4
        )

    def right(v: Values) -> Tensor:
        return (
            torch.cosh(v["right"] - MIX @ v["low"]).sum() + v["right"].square().sum() / 3 - v["right"] @ v["top"].cos()
        )

    def top(v: Values) -> Tensor:
        return (v["left"] - 1).square().sum() + (v["right"] * v["left"]).sin().sum() + v["top"].square().sum() / 2

    start = {"top": torch.tensor([0.5, -0.8]), **{k: torch.zeros(2) for k in ("left", "right", "low")}}
    constrains: Edges = (("top", "left"), ("top", "right"), ("left", "low"))
    reads: Edges = (*constrains, ("right", "low"))
    return Hierarchy({"top": top, "left": left, "right": right, "low": low}, start, constrains, reads)


def two_uppers() -> Hierarchy:
    """Two problems above one, each with a part of its own."""

    def low(v: Values) -> Tensor:
        z, first, second = v["low"], v["first"], v["second"]
        return z.square().sum() / 2 + torch.cosh(MIX @ z - first).sum() / 2 + z.sin() @ MIX @ second / 3

    start = {"first": torch.tensor([0.5, -0.8]), "second": torch.tensor([0.3, 0.4]), "low": torch.zeros(2)}
    edges: Edges = (("first", "low"), ("second", "low"))
    return Hierarchy(
        {
            "first": lambda v: (v["low"] - 1).square().sum() + v["first"].square().sum() / 2,
            "second": lambda v: torch.cosh(v["low"] * v["second"]).sum(),
            "low": low,
        },
        start,
        edges,
        edges,
    )


BILEVEL = {"quadratic": quadratic, "ill-conditioned": ill_conditioned, "logistic": logistic, "direct term": direct_term}
SIBLINGS = {"two uppers": two_uppers}
NESTED = {
    "three levels": nonlinear_three,
    "pure response": pure_response,
    "four levels": four_levels,
    "diamond": diamond,
}


@cache
def solved(name: str) -> tuple[Hierarchy, Values]:
    """A hierarchy of the table and its solution."""
    hierarchy = {**BILEVEL, **SIBLINGS, **NESTED}[name]()
    values = hierarchy.start
    for top in hierarchy.tops:
        values = settled(hierarchy, values, top)
    return hierarchy, values


@cache
def reference(name: str) -> dict[str, Tensor]:
    """The total gradient of each top problem, by finite differences of the re-solved hierarchy."""
    hierarchy, values = solved(name)
    return {top: difference_gradient(hierarchy, values, top) for top in hierarchy.tops}
