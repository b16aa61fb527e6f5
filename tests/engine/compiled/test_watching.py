"""Whoever watches an eager run sees the same of a compiled one: warnings, numbers that are none, files, validations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from multilevel import CG, Neumann, NonFiniteError
from multilevel.configs.loader import load
from multilevel.engine.build import build
from multilevel.engine.cli import app
from multilevel.hypergrad.errors import NumericsWarning, forget_warnings

from ...givens import Given
from ..toy import write_toy
from .builds import Weights, batches, bilevel
from .twins import Twins

pytestmark = pytest.mark.usefixtures("recorded")


def bent(problem: Given, batch: Any) -> Tensor:
    """A lower loss of curvature 1 and ``bend``."""
    first, second = problem.module()
    return ((first - problem.upper().sum()).square() + problem.bend * (second - 1).square()) / 2


def reach(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 2).square().sum() + problem.module().square().sum()


@pytest.mark.parametrize(
    ("method", "bend", "message"),
    [(CG(2), -1.0, "negative curvature"), (Neumann(4, alpha=0.5), 10.0, "terms of the series grow")],
    ids=["cg", "neumann"],
)
def test_methods_warn_from_a_program(method: Any, bend: float, message: str) -> None:
    """What they warn of comes up only after the program was made."""

    def prepare(lower: Given, upper: Given) -> None:
        lower.bend = torch.tensor(0.5)

    twins = Twins(bilevel(method, lower=bent, upper=reach, module=Weights, prepare=prepare))
    twins.step(6)
    twins.assert_compiled()
    for engine in twins.engines:
        engine["lower"].bend.fill_(bend)
        forget_warnings()
        with pytest.warns(NumericsWarning, match=message):
            engine.step()


def bad_at(*steps: int) -> list[Tensor]:
    return [batch * float("nan") if i in steps else batch for i, batch in enumerate(batches(8, 3, count=10))]


@pytest.mark.parametrize("mode", ["skip", "restore"])
@pytest.mark.parametrize("method", ["darts", CG(2, warm_start=True)], ids=["darts", "cg"])
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
def test_a_run_goes_on_without_a_batch_that_is_not_finite(mode: str, method: Any) -> None:
    twins = Twins(bilevel(method, data=bad_at(5), module=lambda: nn.Linear(2, 1)), non_finite=mode, log_step=3)
    twins.step(9)
    twins.assert_equal()
    twins.assert_compiled()
    assert twins.compiled.last_metrics["lower"]["skipped batches"] == 1


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    twins = Twins(bilevel("darts", data=bad_at(6), module=lambda: nn.Linear(2, 1)), log_step=1)
    twins.step(6)
    twins.assert_compiled()
    for engine in twins.engines:
        with pytest.raises(NonFiniteError, match="problem 'lower'"):
            engine.step()


COMPILE = "engine.compile=true"


def test_a_file_may_ask_for_it(tmp_path: Path) -> None:
    engine = build(load(write_toy(tmp_path), [COMPILE, "engine.train_iters=1000000000"]))
    assert engine.config.compile is True
    for _ in range(8):
        engine.step()
    assert {name: found.programs for name, found in engine.compilations.items()} == {"upper": 1, "lower": 1}


@pytest.mark.filterwarnings("ignore:.*more until train_iters")
def test_the_command_runs_it(tmp_path: Path) -> None:
    write_toy(tmp_path)
    result = CliRunner().invoke(app, ["run", str(tmp_path / "toy.yaml"), COMPILE, "--run-dir", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
