"""The tables of docs/conformance.md and docs/cost.md, computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from multilevel import CG, GMRES, MINRES, Darts, Engine, Exact, Identity, Method, Neumann, Nystrom, Sama, Unroll

from .counting import counting
from .generic import engine_of, relative_error
from .hierarchies import BILEVEL, NESTED, SIBLINGS, reference, solved
from .inverses import (
    Solve,
    conjugate_gradient,
    damped,
    minimal_residual,
    neumann_series,
    nystrom_sketch,
    scaled_identity,
)
from .oracles import EXACT, Formula, Hierarchy, Inverse, Values, bilevel_gradient
from .scalable_hierarchies import chain, ladder

LR = 0.5
LOOP = 5
SMALLEST = 1e-9
"""Errors below are those of the reference itself, and differ from machine to machine."""


@dataclass(frozen=True)
class Row:
    """A method in the table, and the closed form that predicts it.

    Attributes:
        method: The method.
        inverse: What it puts in place of the inverse Hessian, or
        solve: what it does to a vector, where that is not linear: then only two levels are predicted.
    """

    method: Method
    inverse: Inverse | None = None
    solve: Solve | None = None

    @property
    def label(self) -> str:
        shown = {"neumann": ("iterations", "alpha"), "nystrom": ("rank", "damping")}
        krylov = ("iterations",) if hasattr(self.method, "tolerance") else ()
        options = ", ".join(f"{o}={getattr(self.method, o)}" for o in shown.get(self.method.name, krylov))
        return f"`{self.method.name}({options})`" + {"sama": f", SGD({LR})", "unroll": f", {LOOP} steps"}.get(
            self.method.name, ""
        )


ROWS = [
    Row(Exact(), EXACT),
    Row(CG(20), EXACT),
    Row(MINRES(20), EXACT),
    Row(GMRES(20), EXACT),
    Row(CG(1), solve=conjugate_gradient(1)),
    Row(CG(2), solve=conjugate_gradient(2)),
    Row(MINRES(2), solve=minimal_residual(2)),
    Row(GMRES(2), solve=minimal_residual(2)),
    Row(Neumann(1, 0.5), neumann_series(1, 0.5)),
    Row(Neumann(5, 0.5), neumann_series(5, 0.5)),
    Row(Neumann(10, 0.5), neumann_series(10, 0.5)),
    Row(Nystrom(rank=1, damping=0.1), nystrom_sketch(1, 0.1)),
    Row(Nystrom(rank=20, damping=0.01), damped(0.01)),
    Row(Identity(), scaled_identity()),
    Row(Darts(alpha=1e-3), scaled_identity(first_order=True)),
    Row(Sama(alpha=1e-3), scaled_identity(LR, first_order=True)),
    Row(Unroll(), solve=lambda H, v: neumann_series(LOOP - 1, LR).matrix(H) @ v),
]
INSIDE = {"three levels": "mid", "pure response": "mid", "diamond": "left", "four levels": "b"}
"""The topmost problem that waits for inner loops below it."""


def conformance_tables() -> list[list[list[str]]]:
    """Method by hierarchy: relative error against the truth, and the error that the method's own formula makes."""
    return [_conformance(list(BILEVEL) + list(SIBLINGS)), _conformance(list(NESTED))]


def _conformance(problems: list[str]) -> list[list[str]]:
    columns = [(problem, top) for problem in problems for top in solved(problem)[0].tops]
    head = [problem if len(solved(problem)[0].tops) == 1 else f"{problem}, {top}" for problem, top in columns]
    return [["method", *head]] + [[row.label, *(_cell(row, *c) for c in columns)] for row in ROWS]


def _cell(row: Row, problem: str, top: str) -> str:
    hierarchy, values = solved(problem)
    truth = reference(problem)[top]
    error = relative_error(_engine(row.method, hierarchy, values, problem).hypergradient(top)[0], truth)
    predicted = _predicted(row, hierarchy, values, top)
    return f"{shown(error)} ({'-' if predicted is None else shown(relative_error(predicted, truth))})"


def _engine(method: Method, hierarchy: Hierarchy, values: Values, problem: str) -> Engine:
    if not method.needs_tape:
        return engine_of(hierarchy, values, method, lr=LR)
    # From the solution, where the loops stay: only that they are short is to be seen.
    waiting = INSIDE.get(problem, "low")
    steps = dict.fromkeys(hierarchy.losses, LOOP) | {waiting: 10**6}
    if problem == "diamond":
        steps["right"] = 10**6
    engine = engine_of(hierarchy, values, method, lr=LR, unroll_steps=steps)
    for _ in range(LOOP ** (len(hierarchy.below(waiting)) + 1)):
        engine.step()
    return engine


def _predicted(row: Row, hierarchy: Hierarchy, values: Values, top: str) -> Tensor | None:
    if row.inverse is not None:
        inverses = {} if row.inverse is EXACT else dict.fromkeys(hierarchy.losses, row.inverse)
        return Formula(hierarchy, values, inverses).gradient(top, values)
    if row.solve is None or len(hierarchy.below(top)) > 1:
        return None
    return bilevel_gradient(hierarchy, values, top, row.solve)


def shown(error: float) -> str:
    """Two digits, or that it is as small as can be told."""
    return f"{error:.1e}" if error >= SMALLEST else f"< {SMALLEST:.0e}"


COSTED = [
    Darts(),
    Sama(),
    Identity(),
    Neumann(5, 0.3),
    CG(5),
    MINRES(5),
    GMRES(5),
    Nystrom(rank=5),
    Exact(),
    Unroll(),
]


def cost_by_depth() -> list[list[str]]:
    """Evaluations and gradients of one hypergradient on chains of 2, 3 and 4 levels."""
    rows = [["method", "2 levels", "3 levels", "4 levels"]]
    for method in COSTED:
        cells = []
        for depth in (2, 3, 4):
            hierarchy = chain(depth)
            steps = {f"level{k}": 3 for k in range(2, depth)} | {"level1": 10**6}
            engine = engine_of(hierarchy, hierarchy.start, method, lr=0.1, unroll_steps=steps)
            for _ in range(3 ** (depth - 1) if method.needs_tape else 0):
                engine.step()
            with counting() as count:
                engine.hypergradient("level0")
            cells.append(f"{count.losses} / {count.gradients} / {count.recorded}")
        rows.append([f"`{method.name}`", *cells])
    return rows


def cost_by_paths() -> list[list[str]]:
    """Evaluations, gradients and pull backs on ladders of diamonds."""
    methods: list[Method] = [Darts(), CG(1), Exact()]
    rows = [["diamonds", "problems", "paths", *(f"`{m.name}`" for m in methods)]]
    for diamonds in (1, 2, 4, 8, 12):
        hierarchy, cells = ladder(diamonds), []
        for method in methods:
            with counting() as count:
                engine_of(hierarchy, hierarchy.start, method).hypergradient("node0")
            cells.append(f"{count.losses} / {count.gradients} / {count.pulls}")
        rows.append([str(diamonds), str(len(hierarchy.losses)), str(2**diamonds), *cells])
    return rows


def markdown(rows: list[list[str]]) -> str:
    """A table in Markdown."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parsed(table: str) -> list[list[str]]:
    """The cells of a table, without the rule under its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return [row for row in rows if set("".join(row)) != {"-"}]


Build = Callable[[], list[list[list[str]]]]
PAGES: dict[str, Build] = {
    "conformance.md": conformance_tables,
    "cost.md": lambda: [cost_by_depth(), cost_by_paths()],
}
