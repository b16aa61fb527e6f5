"""The audit: how far each method's hypergradient is from the truth, at the current point of a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ...hypergrad.errors import ConfigError, MultilevelError, choices
from ...hypergrad.exact import Exact
from ...hypergrad.method import Method
from ...hypergrad.minres import MINRES
from ...hypergrad.registry import available, build_method
from ...hypergrad.tally import tallied
from ...hypergrad.tensors import Tensors, dot, filled, norm, subtract
from ...hypergrad.unroll import Unroll
from ..gradients import Gradients
from ..inspection import untouched
from .allocation import PeakMemory
from .level import level_report
from .report import Audit, LevelReport, Row

if TYPE_CHECKING:
    from ..engine import Engine

DENSE_LIMIT = 1000
"""Largest level whose reference is a dense solve: its Hessian takes as many products as it has parameters."""

REPEATS = 3
"""Timed hypergradients per method, of which the median counts."""

SETTINGS: Mapping[str, Mapping[str, object]] = {
    "cg": {"iterations": 10},
    "minres": {"iterations": 10},
    "gmres": {"iterations": 10},
    "neumann": {"iterations": 10, "alpha": "auto"},
    "nystrom": {"rank": 10, "damping": 0.01},
}
"""Options with which a method is audited where the user names it without any; its defaults otherwise."""


def audit(engine: Engine, name: str, methods: str | Method | Sequence[str | Method] | None = None) -> Audit:
    """Compare hypergradients of ``engine[name]``; see :meth:`Engine.audit`."""
    upper = engine[name].name
    inside = engine.gradients.relations.inside[upper]
    if not inside:
        raise ConfigError(f"audit: problem '{upper}' has no lower that responds to it, so it has no hypergradient")
    levels = {n: p.level for n, p in engine.problems.items()}
    with untouched(levels.values()):
        reports = {m: level_report(engine.gradients.hierarchy, m, upper) for m in inside}
        reference = {m: _reference(reports[m]) for m in inside}
        truth = _total(engine, upper, reference)
        steps = _against_steps(engine, upper, reports, reference)
        rows = [
            _row(engine, upper, label, chosen, level, reference, truth)
            for label, chosen, level in _trials(engine, inside, methods)
        ]
    described = {m: str(method) for m, method in reference.items()}
    return Audit(upper, norm(truth).item(), described, list(reports.values()), rows, steps)


def _reference(report: LevelReport) -> Method:
    """What stands for the truth: a dense solve, or a Krylov solve run to convergence."""
    if report.parameters <= DENSE_LIMIT:
        return Exact()
    # MINRES needs no definite matrix, and takes about as many products as CG where it is definite.
    return MINRES(iterations=500, tolerance=1e-6)


def _against_steps(
    engine: Engine, upper: str, reports: Mapping[str, LevelReport], reference: Mapping[str, Method]
) -> Row | None:
    """The run's own hypergradient against the derivative of the steps that it goes through."""
    if not any(report.through_steps for report in reports.values()):
        return None
    methods = {m: engine[m].method for m in reports}
    whole = {m: Unroll() if reports[m].through_steps else reference[m] for m in reports}
    try:
        # In this order: graphs of the steps, where training kept any, serve once, and the truth is to do without them.
        with _memory_kept(engine):
            own = _total(engine, upper, methods)
        truth = _total(engine, upper, whole)
    except MultilevelError:
        return None
    return Row("as configured", _text(methods), "all", *_comparison(own, truth))


def _trials(
    engine: Engine, inside: Sequence[str], methods: str | Method | Sequence[str | Method] | None
) -> Iterator[tuple[str, dict[str, Method], str]]:
    """(label, methods by level, which level) of every row: the run's own, each method everywhere, then one by one."""
    own = {m: engine[m].method for m in inside}
    yield "as configured", own, "all"
    candidates = _candidates(methods)
    for label, method in candidates:
        yield label, dict.fromkeys(inside, method), "all"
    if len(inside) > 1:
        for member in inside:
            for label, method in candidates:
                yield label, {member: method}, member


def _candidates(methods: str | Method | Sequence[str | Method] | None) -> list[tuple[str, Method]]:
    if methods is None:
        methods = [name for name in available() if name not in ("exact", "reinforce")]
    found: list[tuple[str, Method]] = []
    for method in [methods] if isinstance(methods, (str, Method)) else methods:
        if isinstance(method, str):
            if method not in available():
                raise ConfigError(f"audit: unknown method '{method}'{choices(method, available())}")
            method = build_method(method, **SETTINGS.get(method, {}))
        found.append((method.name, method))
    return found


def _row(
    engine: Engine,
    upper: str,
    label: str,
    methods: Mapping[str, Method],
    level: str,
    reference: Mapping[str, Method],
    truth: Tensors,
) -> Row:
    chosen = {**reference, **methods}
    text = _text(methods)
    try:
        with _memory_kept(engine):
            _total(engine, upper, chosen)  # the first time allocates and compiles
        times = []
        for _ in range(REPEATS):
            with _memory_kept(engine):
                start = time.perf_counter()
                value = _total(engine, upper, chosen)
                times.append(time.perf_counter() - start)
        with _memory_kept(engine), PeakMemory() as memory, tallied() as tally:
            _total(engine, upper, chosen)
    except MultilevelError as error:
        return Row(label, text, level, failure=str(error))
    return Row(
        label,
        text,
        level,
        *_comparison(value, truth),
        seconds=statistics.median(times),
        peak_bytes=memory.peak,
        gradients=tally.gradients,
        hessian_products=tally.hessian_products,
        mixed_products=tally.mixed_products,
    )


def _total(engine: Engine, upper: str, methods: Mapping[str, Method]) -> Tensors:
    """The hypergradient with the given methods; waits for the device."""
    levels = {n: p.level for n, p in engine.problems.items()}
    gradients = Gradients(engine.graph, levels, total=engine.config.response == "total", methods=methods)
    value = filled(gradients.total(upper, levels[upper].evaluate({}).loss).total, levels[upper].parameters)
    if value[0].is_cuda:
        torch.cuda.synchronize(value[0].device)
    return value


@contextmanager
def _memory_kept(engine: Engine) -> Iterator[None]:
    """Let every trial start from the memory that the methods have in the run."""
    before = [(p.level.memory, dict(p.level.memory)) for p in engine.problems.values()]
    try:
        yield
    finally:
        for memory, kept in before:
            memory.clear()
            memory.update(kept)


def _text(methods: Mapping[str, Method]) -> str:
    return ", ".join(dict.fromkeys(map(str, methods.values())))


def _comparison(value: Tensors, truth: Tensors) -> tuple[float | None, float | None, float | None]:
    """Cosine, norm ratio and relative error; there are none where the truth is zero."""
    size, true_size = norm(value).item(), norm(truth).item()
    if true_size == 0.0:
        return None, None, None
    cosine = dot(value, truth).item() / (size * true_size) if size > 0.0 else 0.0
    return cosine, size / true_size, norm(subtract(value, truth)).item() / true_size
