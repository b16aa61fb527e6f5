"""The audit says of each method what dense algebra says, warns of what is wrong, and leaves the run alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from multilevel import CG, Config, ConfigError, Darts, Engine, EngineConfig, Identity, Problem
from multilevel.engine.audit.allocation import PeakMemory
from multilevel.engine.audit.picture import save_audit_picture
from multilevel.engine.cli import app

from ...conftest import CONVERGED, FINITE_DIFFERENCE

H = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
B = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.0, 1.0]], dtype=torch.float64)


class Vector(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values.clone())


class Lower(Problem):
    detach = False

    def training_step(self, batch: Any) -> Tensor:
        w, lam = self.module.values, self.upper.module.values
        # As in Meta-Weight-Net, a weight that looks at the loss: detached, its own slope is missing from the update.
        seen = w.detach() if self.detach else torch.ones(3)
        return 0.5 * w @ H @ w - (w * (B.T @ lam) * seen).sum()


class Upper(Problem):
    def training_step(self, batch: Any) -> Tensor:
        return ((self.lower.module.values - 1.0) ** 2).sum()


def engine(method: Any = "cg", detach: bool = False) -> Engine:
    lam = torch.tensor([0.4, -1.0, 0.7])
    modules = Vector(torch.linalg.solve(H, B.T @ lam)), Vector(lam)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in modules]
    lower = Lower("lower", module=modules[0], optimizer=optimizers[0], config=Config(type=method))
    lower.detach = detach
    upper = Upper("upper", module=modules[1], optimizer=optimizers[1])
    return Engine([upper, lower], edges=[(upper, lower)], config=EngineConfig(train_iters=5))


def truth(of: Engine, inverse: Tensor) -> Tensor:
    return B @ inverse @ (2 * (of["lower"].module.values.detach() - 1.0))


def test_errors_are_those_of_dense_algebra() -> None:
    audited = engine()
    audit = audited.audit("upper", [Identity(), Darts(), CG(iterations=3), CG(iterations=1)])
    exact, identity = truth(audited, torch.linalg.inv(H)), truth(audited, torch.eye(3))
    errors = {row.method: row.relative_error for row in audit.rows if row.label != "as configured"}
    expected = ((identity - exact).norm() / exact.norm()).item()
    assert errors["identity"] == pytest.approx(expected, rel=CONVERGED)
    assert errors["darts"] == pytest.approx(expected, rel=FINITE_DIFFERENCE)
    assert errors["cg(iterations=3)"] < CONVERGED < errors["cg"]
    assert audit.reference_norm == pytest.approx(exact.norm().item(), rel=CONVERGED)
    row = next(r for r in audit.rows if r.method == "identity")
    cosine = torch.nn.functional.cosine_similarity(identity, exact, dim=0).item()
    assert row.cosine == pytest.approx(cosine, rel=CONVERGED)
    assert row.norm_ratio == pytest.approx((identity.norm() / exact.norm()).item(), rel=CONVERGED)


def test_work_is_counted() -> None:
    rows = {r.method: r for r in engine().audit("upper", [Identity(), Darts(), CG(iterations=3)]).rows}
    assert (rows["cg(iterations=3)"].hessian_products, rows["cg(iterations=3)"].mixed_products) == (3, 1)
    assert (rows["identity"].gradients, rows["identity"].hessian_products) == (1, 0)
    assert (rows["darts"].gradients, rows["darts"].mixed_products) == (2, 0)


def test_the_level_is_described() -> None:
    (level,) = engine().audit("upper", ["identity"]).levels
    assert level.gradient_norm < CONVERGED
    assert (level.smallest_curvature, level.largest_curvature) == pytest.approx((1.0, 5.0), rel=CONVERGED)
    assert level.asymmetry < FINITE_DIFFERENCE


def test_a_detached_loss_is_detected() -> None:
    audit = engine(detach=True).audit("upper", ["darts", "identity"])
    assert audit.levels[0].asymmetry > 0.1
    assert any("detaches" in line and "darts" in line for line in audit.verdict())


def test_the_verdict_recommends_what_is_accurate() -> None:
    audit = engine("darts").audit("upper", ["identity", CG(iterations=3)])
    assert "cg(iterations=3)" in audit.verdict()[-1]
    kept = engine(CG(iterations=3)).audit("upper", ["identity"])
    assert "accurate" in kept.verdict()[-2]


def test_the_run_goes_on_as_if_nothing_had_been_asked() -> None:
    asked, left = engine(CG(iterations=2, warm_start=True)), engine(CG(iterations=2, warm_start=True))
    for run in (asked, left):
        run.step()
    asked.audit("upper")
    for run in (asked, left):
        run.run()
    for name in ("upper", "lower"):
        assert torch.equal(asked[name].module.values, left[name].module.values)
    assert asked["lower"].level.memory.keys() == left["lower"].level.memory.keys()


def test_a_method_that_cannot_is_a_row_with_its_reason() -> None:
    audit = engine().audit("upper", ["unroll"])
    assert audit.rows[1].failure is not None
    assert "unroll" in audit.to_text()


@pytest.mark.parametrize("method", ["cg", CG(iterations=2)])
def test_a_single_method_needs_no_list(method: str | CG) -> None:
    assert [row.label for row in engine().audit("upper", method).rows] == ["as configured", "cg"]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="no lower that responds"):
        engine().audit("lower")
    with pytest.raises(ConfigError, match="did you mean 'neumann'"):
        engine().audit("upper", ["neuman"])


def test_json_and_picture(tmp_path: Path) -> None:
    audit = engine().audit("upper", ["identity", "cg"])
    found = json.loads(audit.to_json())
    assert found["rows"][1]["label"] == "identity"
    assert found["verdict"] == audit.verdict()
    save_audit_picture(audit, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_peak_memory_counts_what_is_held_at_once() -> None:
    with PeakMemory() as memory:
        kept = torch.zeros(1000)
        for _ in range(3):
            other = kept + 1
        del other
        kept = kept * 2
    assert memory.peak == 3 * kept.nbytes  # the loop holds the old result while it makes the next


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    arguments = ["audit", "l2-breast-cancer", "--steps", "3", "--method", "identity", "--png", str(tmp_path / "a.png")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "identity" in done.output
    assert (tmp_path / "a.png").exists()
