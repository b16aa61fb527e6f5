"""What an audit found: numbers, a table, and a verdict in plain words."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from ..tables import table

GOOD = 0.01
"""Relative error up to which a hypergradient is called accurate."""
DETACHED = 0.05
"""Asymmetry that no finite difference has by itself: the training step detaches."""
HOPELESS = 0.5
"""Relative error from which changing the method does not help."""
USABLE = 0.9
"""Cosine from which a hypergradient still points the right way."""


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
    """

    name: str
    method: str
    parameters: int
    gradient_norm: float
    parameter_norm: float
    smallest_curvature: float
    largest_curvature: float
    asymmetry: float


@dataclass(frozen=True)
class Row:
    """One hypergradient against the reference.

    Attributes:
        label: The method's name, or ``"as configured"``.
        method: The method with its options.
        level: The level whose method it replaces, the others solved exactly; ``"all"`` for all at once.
        cosine: Cosine of the angle to the reference.
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
        rows: One per method and place.
    """

    upper: str
    reference_norm: float
    reference: dict[str, str]
    levels: list[LevelReport]
    rows: list[Row]

    def to_json(self) -> str:
        """Everything, as a JSON object."""
        return json.dumps({**dataclasses.asdict(self), "verdict": self.verdict()}, indent=2)

    def to_text(self) -> str:
        """Tables and verdict for a terminal."""
        references = ", ".join(f"{name} by {method}" for name, method in self.reference.items())
        return "\n".join(
            [
                f"audit of '{self.upper}': hypergradient of norm {self.reference_norm:.3g}; reference: {references}",
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
        return [line for level in self.levels for line in _level_verdict(level)] + self._recommendation()

    def best(self) -> Row | None:
        """The fastest accurate method; the most accurate where none is."""
        rows = [r for r in self.rows if r.level == "all" and r.label != "as configured" and r.seconds is not None]
        accurate = [r for r in rows if (r.relative_error or 0.0) <= GOOD]
        if accurate:
            return min(accurate, key=lambda r: r.seconds or 0.0)
        return min(rows, key=lambda r: r.relative_error or 0.0, default=None)

    def _recommendation(self) -> list[str]:
        own, best = self.rows[0], self.best()
        lines = [_own_verdict(own)]
        if best is not None and own.relative_error is not None and best.relative_error is not None:
            if own.relative_error <= GOOD and (own.seconds or 0.0) <= 1.5 * (best.seconds or 0.0):
                lines.append("Recommendation: keep it.")
            elif best.relative_error > HOPELESS:
                lines.append("Recommendation: no method is right at this point; first see to what is said above.")
            else:
                lines.append(
                    f"Recommendation: {best.method}, relative error {best.relative_error:.2g} "
                    f"in {_milliseconds(best.seconds)} (now: {_milliseconds(own.seconds)})."
                )
        return lines


def _own_verdict(own: Row) -> str:
    if own.failure is not None:
        return f"The run's own setting gives no hypergradient here: {own.failure}"
    error, cosine = own.relative_error or 0.0, own.cosine or 0.0
    if error <= GOOD:
        quality = "accurate"
    elif cosine >= USABLE:
        quality = f"biased but points the right way (norm {own.norm_ratio:.2g} of the true one)"
    else:
        quality = "misleading: do not trust where it points"
    return f"The run's hypergradient is {quality}: relative error {error:.2g}, cosine {cosine:.3f}."


def _level_verdict(level: LevelReport) -> list[str]:
    lines = []
    if level.asymmetry > DETACHED:
        lines.append(
            f"'{level.name}': its training step detaches part of its loss (its mixed derivative is asymmetric by "
            f"{level.asymmetry:.2g}), so the finite-difference methods darts and sama are wrong here; "
            "use a method with an autograd mixed derivative (identity, neumann, cg, ...)."
        )
    if level.smallest_curvature < -1e-3 * level.largest_curvature:
        lines.append(
            f"'{level.name}': negative curvature ({level.smallest_curvature:.2g}, largest "
            f"{level.largest_curvature:.2g}): not at a minimum. Train it further, add damping, use minres, or "
            "Gauss-Newton curvature."
        )
    if level.gradient_norm > 0.1 * max(level.largest_curvature, 1e-12) * max(level.parameter_norm, 1e-12):
        lines.append(
            f"'{level.name}': far from a solution (gradient norm {level.gradient_norm:.2g}), which every implicit "
            "method assumes; raise unroll_steps, or use unroll, which does not."
        )
    return lines


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
        f"{row.cosine:.4f}",
        f"{row.norm_ratio:.3g}",
        f"{row.relative_error:.2g}",
        _milliseconds(row.seconds),
        f"{(row.peak_bytes or 0) / 2**20:.2f} MiB",
        str(row.gradients),
        str(row.hessian_products),
        str(row.mixed_products),
    ]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
