"""What an audit found, in plain words, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Audit, LevelReport, Row

GOOD = 0.01
"""Relative error up to which a hypergradient is called accurate."""
DETACHED = 0.05
"""Asymmetry that no finite difference has by itself: the training step detaches."""
HOPELESS = 0.5
"""Relative error from which changing the method does not help."""
USABLE = 0.9
"""Cosine from which a hypergradient still points the right way."""


def verdict(audit: Audit) -> list[str]:
    """One line for each thing to know: of the levels, of the run's own hypergradient, of what to use instead."""
    own = audit.rows[0]
    lines = [line for level in audit.levels for line in _of_level(level)]
    if own.failure is not None:
        lines.append(f"The run's own setting gives no hypergradient here: {own.failure}")
    if audit.reference_norm == 0.0:
        lines += _zero_reference(audit)
    if any(level.through_steps for level in audit.levels):
        return lines + _through_steps(audit)
    if own.relative_error is not None:
        lines += [f"{_quality(own)}.", *_recommendation(own, audit.best())]
    return lines


def milliseconds(seconds: float | None) -> str:
    """As both the table and the verdict write times."""
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"


def _of_level(level: LevelReport) -> list[str]:
    found = []
    if level.asymmetry > DETACHED:
        detached = (
            "its training step detaches part of its loss (its mixed derivative is asymmetric by "
            f"{level.asymmetry:.2g}), so the finite-difference methods darts and sama are wrong here"
        )
        found.append((detached, "; use a method with an autograd mixed derivative (identity, neumann, cg, ...)."))
    if level.smallest_curvature < -1e-3 * level.largest_curvature:
        indefinite = (
            f"negative curvature ({level.smallest_curvature:.2g}, largest {level.largest_curvature:.2g}): "
            "not at a minimum"
        )
        found.append((indefinite, ". Train it further, add damping, use minres, or Gauss-Newton curvature."))
    if level.gradient_norm > 0.1 * max(level.largest_curvature, 1e-12) * max(level.parameter_norm, 1e-12):
        far = f"far from a solution (gradient norm {level.gradient_norm:.2g}), which every implicit method assumes"
        found.append((far, "; raise unroll_steps, or use unroll, which does not."))
    # What an implicit method needs is no advice to a run that uses none.
    return [f"'{level.name}': {what}{'.' if level.through_steps else advice}" for what, advice in found]


def _zero_reference(audit: Audit) -> list[str]:
    upper = f"'{audit.upper}'"
    said = (
        f"The reference is zero: to first order, the loss of {upper} depends on {upper} neither directly nor through a "
        "solution below. No method can be judged by it, and none is recommended."
    )
    if audit.steps is not None and audit.steps.relative_error is not None:
        return [said, f"It depends on {upper} through the steps alone, as on where they begin (initial_parameters)."]
    why = "It is flat here, or the dependence is cut off (by detach() or item(), or as a number set on an optimizer)"
    if audit.steps is None:
        why += ", or it is one on where an inner loop begins (initial_parameters), which takes unroll"
    return [said, f"{why}."]


def _through_steps(audit: Audit) -> list[str]:
    """Of a run whose hypergradient is no approximation of the reference."""
    own, lines = audit.rows[0], []
    names = ", ".join(f"'{level.name}'" for level in audit.levels if level.through_steps)
    if own.relative_error is not None and own.cosine is not None:
        lines.append(
            f"The run differentiates the steps that {names} took, and the reference the solution that they head for: "
            f"relative distance {own.relative_error:.2g}, cosine {own.cosine:.3f}. That is how far the steps taken are "
            "from a solution's response, and no error of the run; no method is recommended on that ground."
        )
    if audit.steps is not None and audit.steps.relative_error is not None:
        lines.append(f"{_quality(audit.steps)}, against the derivative of all the steps that {names} took.")
    elif audit.steps is not None:
        lines.append(f"The derivative of the steps that {names} took is zero.")
    return lines


def _quality(own: Row) -> str:
    error, cosine = own.relative_error or 0.0, own.cosine or 0.0
    if error <= GOOD:
        quality = "accurate"
    elif cosine >= USABLE:
        quality = f"biased but points the right way (norm {own.norm_ratio:.2g} of the true one)"
    else:
        quality = "misleading: do not trust where it points"
    return f"The run's hypergradient is {quality}: relative error {error:.2g}, cosine {cosine:.3f}"


def _recommendation(own: Row, best: Row | None) -> list[str]:
    if best is None or best.relative_error is None or own.relative_error is None:
        return []
    if own.relative_error <= GOOD and (own.seconds or 0.0) <= 1.5 * (best.seconds or 0.0):
        return ["Recommendation: keep it."]
    if best.relative_error > HOPELESS:
        return ["Recommendation: no method is right at this point; first see to what is said above."]
    return [
        f"Recommendation: {best.method}, relative error {best.relative_error:.2g} "
        f"in {milliseconds(best.seconds)} (now: {milliseconds(own.seconds)})."
    ]
