"""A run that differentiates the steps it took is judged by these, and a reference of zero judges nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import CG, Config, Engine, EngineConfig, Problem, Unroll
from multilevel.engine.audit.picture import save_audit_picture
from multilevel.engine.audit.report import Audit

from ...conftest import CLOSED_FORM, EXACT
from ...givens import Vector

RATE, STEPS = 0.1, 3
H = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))


class Lower(Problem):
    """w H w / 2 - w lam, by a few steps of plain descent from where it is told."""

    starts_above = sees_above = True

    def initial_parameters(self) -> Sequence[Tensor]:
        return [self.upper.module() if self.starts_above else torch.zeros(3)]

    def training_step(self, batch: Any) -> Tensor:
        w, lam = self.module(), self.upper.module()
        return 0.5 * w @ H @ w - w @ (lam if self.sees_above else torch.ones(3))


class Upper(Problem):
    def training_step(self, batch: Any) -> Tensor:
        return (self.lower.module() - 1.0).square().sum()


def trained(method: Any = "unroll", *, starts_above: bool = False, sees_above: bool = False) -> Engine:
    modules = Vector(0.0, 0.0, 0.0), Vector(0.4, -1.0, 0.7)
    optimizers = [torch.optim.SGD(m.parameters(), lr=lr) for m, lr in zip(modules, (RATE, 0.0), strict=True)]
    config = Config(type=method, unroll_steps=STEPS)
    lower = Lower("lower", module=modules[0], optimizer=optimizers[0], config=config)
    lower.starts_above, lower.sees_above = starts_above, sees_above
    upper = Upper("upper", module=modules[1], optimizer=optimizers[1])
    engine = Engine([upper, lower], edges=[(upper, lower)], config=EngineConfig(train_iters=STEPS + 1))
    for _ in range(STEPS):
        engine.step()
    return engine


def said(audit: Audit) -> str:
    return " ".join(audit.verdict())


def through(engine: Engine, steps: int) -> Tensor:
    """d loss / d lam through the last steps of w' = w - RATE (H w - lam), by hand."""
    decay, cotangent = torch.eye(3) - RATE * H, 2 * (engine["lower"].module().detach() - 1.0)
    return RATE * sum((torch.linalg.matrix_power(decay, k) for k in range(steps)), torch.zeros(3, 3)) @ cotangent


@pytest.mark.parametrize("method", [Unroll(), Unroll(checkpoints="all"), Unroll(checkpoints="sqrt")], ids=str)
@pytest.mark.parametrize("starts_above", [False, True], ids=["fixed start", "learned start"])
def test_steps_in_full_are_accurate_wherever_they_end(method: Unroll, starts_above: bool) -> None:
    audit = trained(method, starts_above=starts_above, sees_above=True).audit("upper", "cg")
    assert audit.steps is not None
    assert audit.steps.relative_error is not None
    assert audit.steps.relative_error < EXACT
    assert "hypergradient is accurate" in said(audit)
    assert "all the steps that 'lower' took" in said(audit)
    assert not any(word in said(audit) for word in ("misleading", "Recommendation", "or use unroll"))


def test_the_distance_from_a_solution_is_no_error() -> None:
    engine = trained(sees_above=True)
    audit = engine.audit("upper", CG(iterations=3))
    own, cotangent = through(engine, STEPS), 2 * (engine["lower"].module().detach() - 1.0)
    implicit = torch.linalg.solve(H, cotangent)
    distance = ((own - implicit).norm() / implicit.norm()).item()
    assert audit.rows[0].relative_error == pytest.approx(distance, rel=CLOSED_FORM)
    assert f"relative distance {distance:.2g}" in said(audit)
    assert "no error of the run" in said(audit)


def test_a_truncation_is_an_error() -> None:
    engine = trained(Unroll(truncation=1), sees_above=True)
    audit = engine.audit("upper", "cg")
    whole = through(engine, STEPS)
    expected = ((through(engine, 1) - whole).norm() / whole.norm()).item()
    assert audit.steps is not None
    assert audit.steps.relative_error == pytest.approx(expected, rel=CLOSED_FORM)
    assert f"relative error {expected:.2g}" in said(audit)


@pytest.mark.parametrize("method", ["unroll", CG(iterations=3)], ids=str)
def test_levels_are_advised_by_the_method_that_they_have(method: Any) -> None:
    audit = trained(method, sees_above=True).audit("upper", "cg")
    assert "far from a solution" in said(audit)
    assert ("or use unroll" in said(audit)) == (method != "unroll")
    assert [level.through_steps for level in audit.levels] == [method == "unroll"]


@pytest.mark.parametrize("sees_above", [True, False])
def test_before_the_first_step_there_is_nothing_to_judge(sees_above: bool) -> None:
    engine = trained(starts_above=True, sees_above=sees_above)
    engine["lower"].level.loop.begin(None)
    audit = engine.audit("upper", "cg")
    assert ("The reference is zero" in said(audit), "initial_parameters" in said(audit)) == (not sees_above,) * 2
    assert audit.steps is None
    assert "the recorded inner loop is empty" in said(audit)
    assert "accurate" not in said(audit)


def test_a_start_from_above_is_seen_through_the_steps_alone() -> None:
    audit = trained(starts_above=True).audit("upper")
    assert audit.reference_norm == 0.0
    assert "The reference is zero" in said(audit)
    assert "initial_parameters" in said(audit)
    assert "hypergradient is accurate" in said(audit)


@pytest.mark.parametrize("method", ["unroll", "cg", "darts"])
def test_where_nothing_is_reached_nothing_is_recommended(method: str, tmp_path: Path) -> None:
    audit = trained(method).audit("upper")
    assert audit.best() is None
    assert {(r.cosine, r.norm_ratio, r.relative_error) for r in audit.rows} == {(None, None, None)}
    assert "cut off" in said(audit)
    assert not any(
        word in said(audit) + audit.to_text() for word in ("Recommendation", "accurate", "misleading", "inf")
    )
    assert json.loads(audit.to_json(), parse_constant=pytest.fail)["verdict"] == audit.verdict()
    save_audit_picture(audit, tmp_path / "nothing.png")
