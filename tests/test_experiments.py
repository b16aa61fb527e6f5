"""Every experiment that is shipped loads, says what it is, and runs."""

from __future__ import annotations

import pytest
import torch

from multilevel.configs.loader import load, shipped
from multilevel.engine.build import build

NAMES = sorted(shipped())


def test_the_demo_is_shipped():
    assert {"reweight-digits", "l2-breast-cancer"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_one_line_for_the_list(name):
    description = load(name).experiment.description
    assert description
    assert len(description) <= 100
    assert "\n" not in description


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_two_steps_of_every_problem_at_the_bottom(name):
    torch.set_default_dtype(torch.float32)
    engine = build(load(name, ["engine.train_iters=2", "engine.device=cpu"]))
    engine.run()
    assert engine.step_count == 2
    assert all(torch.isfinite(metrics["loss"]) for metrics in engine.last_metrics.values())
    leaves = [p for p in engine.problems.values() if not engine.graph.lowers(p.name)]
    assert [p.count for p in leaves] == [2] * len(leaves)


@pytest.mark.parametrize("name", ["reweight-digits", "l2-breast-cancer"])
def test_same_seed_same_run_and_another_seed_another(name):
    torch.set_default_dtype(torch.float32)

    def end(seed: int) -> torch.Tensor:
        overrides = ["engine.train_iters=8", f"engine.seed={seed}", "engine.device=cpu"]
        quick = ["problems.classifier.config.unroll_steps=2", "problems.classifier.config.warmup_steps=2"]
        engine = build(load(name, [*overrides, *quick]))
        engine.run()
        return torch.cat([p.flatten() for problem in engine.problems.values() for p in problem.parameters]).detach()

    assert torch.equal(end(0), end(0))
    assert not torch.equal(end(0), end(1))
