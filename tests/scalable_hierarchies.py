"""Hierarchies of any depth: for laws about depth, and to count what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from .hierarchies import random_tensor, with_spectrum
from .oracles import Edges, Formula, Hierarchy, Values, settled


def unit_quadratics(depth: int, size: int = 2) -> tuple[Hierarchy, Values]:
    """Quadratics in which everything reads everything and every *total* Hessian is the identity; at the solution."""
    names = [f"level{k}" for k in range(depth)]
    own = {name: torch.zeros(size, size, dtype=torch.float64) for name in names}
    start = {name: random_tensor(size, seed=20 + k) for k, name in enumerate(names)}

    def loss(k: int) -> Callable[[Values], Tensor]:
        A, b = random_tensor(depth * size, depth * size, seed=30 + k) / 4, random_tensor(depth * size, seed=40 + k)

        def function(v: Values) -> Tensor:
            everything = torch.cat([v[name] for name in names])
            return everything @ A @ everything / 2 + b @ everything + v[names[k]] @ own[names[k]] @ v[names[k]] / 2

        return function

    edges: Edges = tuple((up, low) for i, up in enumerate(names) for low in names[i + 1 :])
    hierarchy = Hierarchy({name: loss(k) for k, name in enumerate(names)}, start, edges, edges)
    for name in reversed(names[1:]):
        # A multiple of its own square moves a problem's total Hessian, and those of no problem below.
        formula = Formula(hierarchy, start)
        own[name] += torch.eye(size) - formula.hessian(name, start)
    return hierarchy, settled(hierarchy, start, names[0])


def chain(depth: int, size: int = 8) -> Hierarchy:
    """Each level constrains and reads the next; nonlinear, anywhere but at the solution."""
    names = [f"level{k}" for k in range(depth)]

    def loss(k: int) -> Callable[[Values], Tensor]:
        A = with_spectrum([1 + i / size for i in range(size)], 50 + k)

        def function(v: Values) -> Tensor:
            own = v[names[k]]
            value = own @ A @ own / 2
            if k > 0:
                value = value + torch.cosh(own - v[names[k - 1]]).sum() / 4
            return value + own.sin() @ v[names[k + 1]] / 4 + v[names[k + 1]].sum() if k + 1 < depth else value

        return function

    edges: Edges = tuple(itertools.pairwise(names))
    start = {name: random_tensor(size, seed=60 + k) / 4 for k, name in enumerate(names)}
    return Hierarchy({name: loss(k) for k, name in enumerate(names)}, start, edges, edges)


def ladder(diamonds: int) -> Hierarchy:
    """Diamonds on top of each other: the lowest follows the top, and its solution comes back along 2^diamonds paths."""
    nodes = [f"node{k}" for k in range(diamonds + 1)]
    reads: list[tuple[str, str]] = []
    for k in range(diamonds):
        reads += [(nodes[k], f"left{k}"), (nodes[k], f"right{k}")]
        reads += [(f"left{k}", nodes[k + 1]), (f"right{k}", nodes[k + 1])]

    def loss(name: str) -> Callable[[Values], Tensor]:
        lowers = [low for up, low in reads if up == name] or [nodes[0]]
        if name == nodes[0]:
            return lambda v: sum(v[low].sum() for low in lowers)
        return lambda v: (v[name] - sum(v[low] for low in lowers)).square().sum() / 2

    between = [name for k in range(diamonds) for name in (f"left{k}", f"right{k}", nodes[k + 1])]
    names = [nodes[0], *between]
    start = {name: torch.ones(1) for name in names}
    return Hierarchy({name: loss(name) for name in names}, start, ((nodes[0], nodes[-1]),), tuple(reads))
