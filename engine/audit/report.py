"""What an audit found: numbers, and tables of them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from ..tables import table
from .verdict import GOOD, milliseconds, verdict


@dataclass(frozen=True)
class LevelReport:
    """The state of one lower level.

    Attributes:
        name: The level.
        method: Its method in the run.
        parameters: Number of its parameters.
        gradient_norm: Norm of its (total) gradient: zero at a solution, which implicit methods assume.
        parameter_norm: Norm of its parameters.
        smallest_curvature: Smallest eigenvalue of its (total) Hessian, by Lanczos.
        largest_curvature: Largest eigenvalue.
        asymmetry: Relative difference between the two orders of the mixed derivative; not zero where its training step
            detaches.
        through_steps: Whether its method in the run differentiates the steps that it took, converged or not (unroll).
    """

    name: str
    method: str
    parameters: int
    gradient_norm: float
    parameter_norm: float
    smallest_curvature: float
    largest_curvature: float
    asymmetry: float
    through_steps: bool = False


@dataclass(frozen=True)
class Row:
    """One hypergradient against the reference.

    Attributes:
        label: The method's name, or ``"as configured"``.
        method: The method with its options.
        level: The level whose method it replaces, the others solved exactly; ``"all"`` for all at once.
        cosine: Cosine of the angle to the reference; this and the next two are ``None`` where that is zero.
        norm_ratio: Its norm over that of the reference.
        relative_error: Norm of the difference over that of the reference.
        seconds: Wall time of one hypergradient.
        peak_bytes: Most memory that it held at once beyond what the run holds.
        gradients: First-order backward passes.
        hessian_products: Products with Hessians.
        mixed_products: Products with mixed derivatives.
        failure: Why there are no numbers, where there are none.
    """

    label: str
    method: str
    level: str
    cosine: float | None = None
    norm_ratio: float | None = None
    relative_error: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    gradients: int | None = None
    hessian_products: int | None = None
    mixed_products: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Audit:
    """The result of :meth:`Engine.audit`.

    Attributes:
        upper: The problem whose hypergradient was audited.
        reference_norm: Norm of the reference hypergradient.
        reference: How each level was differentiated for the reference.
        levels: The lower levels.
        rows: One per method and place; the first is the run's own.
        steps: The run's own, untimed, against what it stands for where it goes through the steps of a level: the
            derivative of all of them, each evaluated again, and the reference at the other levels. ``None`` where no
            method goes through steps, or these cannot be taken again.
    """

    upper: str
    reference_norm: float
    reference: dict[str, str]
    levels: list[LevelReport]
    rows: list[Row]
    steps: Row | None = None

    def to_json(self) -> str:
        """Everything, as a JSON object."""
        return json.dumps({**dataclasses.asdict(self), "verdict": self.verdict()}, indent=2)

    def to_text(self) -> str:
        """Tables and verdict for a terminal."""
        references = ", ".join(f"{name} by {method}" for name, method in self.reference.items())
        return "\n".join(
            [
                f"audit of '{self.upper}': reference of norm {self.reference_norm:.3g}: {references}",
                "",
                _levels_table(self.levels),
                "",
                _rows_table(self.rows, several=len(self.levels) > 1),
                *dict.fromkeys(f"  {row.failure}" for row in self.rows if row.failure is not None),
                "",
                *self.verdict(),
            ]
        )

    def verdict(self) -> list[str]:
        """What the numbers mean, and what to do."""
        return verdict(self)

    def best(self) -> Row | None:
        """The fastest accurate method, the most accurate where none is, none where the reference is zero."""
        rows = [r for r in self.rows[1:] if r.level == "all" and r.relative_error is not None]
        accurate = [r for r in rows if (r.relative_error or 0.0) <= GOOD]
        if accurate:
            return min(accurate, key=lambda r: r.seconds or 0.0)
        return min(rows, key=lambda r: r.relative_error or 0.0, default=None)


def _levels_table(levels: list[LevelReport]) -> str:
    header = ("level", "method", "parameters", "gradient norm", "curvature", "asymmetry")
    rows = (
        (
            x.name,
            x.method,
            f"{x.parameters:,}",
            f"{x.gradient_norm:.2g}",
            f"{x.smallest_curvature:.2g} .. {x.largest_curvature:.2g}",
            f"{x.asymmetry:.1g}",
        )
        for x in levels
    )
    return table(header, rows)


def _rows_table(rows: list[Row], *, several: bool) -> str:
    header = ["method", "cosine", "norm", "error", "time", "memory", "gradients", "hvps", "mixed"]
    if several:
        header.insert(1, "level")
    return table(header, (_cells(row, several=several) for row in rows))


def _cells(row: Row, *, several: bool) -> list[str]:
    name = [row.label, row.level] if several else [row.label]
    if row.failure is not None:
        return [*name, "-", "-", "-", "-", "-", "-", "-", "-"]
    return [
        *name,
        _compared(row.cosine, ".4f"),
        _compared(row.norm_ratio, ".3g"),
        _compared(row.relative_error, ".2g"),
        milliseconds(row.seconds),
        f"{(row.peak_bytes or 0) / 2**20:.2f} MiB",
        str(row.gradients),
        str(row.hessian_products),
        str(row.mixed_products),
    ]


def _compared(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
