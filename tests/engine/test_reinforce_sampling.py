"""REINFORCE with real random numbers: means of many estimates, and the variance table of the documentation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from multilevel.hypergrad.reinforce import Reinforce

from ..givens import Given, Vector, pair

ROOT = Path(__file__).parents[2]
MANY = 20_000


def within_standard_errors(estimates: Tensor, expected: Tensor, most: float = 4.0) -> None:
    errors = estimates.std(0) / len(estimates) ** 0.5
    assert (errors > 0).all()
    assert ((estimates.mean(0) - expected).abs() < most * errors).all()


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("direct", [False, True])
def test_the_mean_of_20000_estimates_side_by_side(samples: int, direct: bool) -> None:
    """Each example has a logit of its own, and its loss is one number: the gradient's entries are the estimates."""

    def lower(problem: Given, batch: Any) -> Any:
        phi, theta = problem.upper(), problem.module()
        keep = problem.sample(Bernoulli(logits=phi))
        return {"losses": keep * (theta - 2).square().sum() + (phi.sin() * theta.sum() if direct else 0.0)}

    def upper(problem: Given, batch: Any) -> Tensor:
        return (problem.lower() * torch.tensor([1.0, -3.0])).sum()

    modules = (Vector(0.5, -0.25), Vector(*[0.3] * MANY))
    engine = pair(lower, upper, method=Reinforce(samples=samples), modules=modules)
    estimates = engine.hypergradient("upper")[0] * MANY
    phi = torch.tensor(0.3, requires_grad=True)
    theta = torch.tensor([0.5, -0.25])
    slope = phi.sigmoid() * 2 * (theta - 2) + (phi.sin() if direct else 0.0)
    (expected,) = torch.autograd.grad(-(slope @ torch.tensor([1.0, -3.0])), phi)
    within_standard_errors(estimates, expected)


def one_after_another(method: Reinforce, number: int) -> tuple[Tensor, Tensor]:
    """Estimates of one derivative, with categorical choices among three for four examples, and its value."""
    strength = torch.tensor([0.0, 1.0, 3.0])
    targets = torch.tensor([0.5, -1.0, 2.0, 0.3])

    def losses(theta: Tensor, phi: Tensor, weights: Tensor) -> Tensor:
        return weights * (theta - targets).square() + phi[0] * theta.sin()

    def lower(problem: Given, batch: Any) -> Tensor:
        chosen = problem.sample(Categorical(logits=problem.upper().expand(4, 3)))
        return losses(problem.module(), problem.upper(), strength[chosen]).mean()

    engine = pair(
        lower, lambda p, b: p.lower().square().sum(), method=method, modules=(Vector(0.4), Vector(0.1, 0.5, -0.2))
    )
    lower_level = engine["lower"].level
    found = []
    for _ in range(number):
        lower_level.next_moment()
        loss = engine["upper"].level.evaluate({}).loss
        found.append(engine.gradients.total("upper", loss).total[0])
        torch.rand(1 + method.samples)  # on to numbers that were not seen
    phi = engine["upper"].module.value.detach().requires_grad_()
    theta = engine["lower"].module.value.detach().requires_grad_()
    expected_loss = losses(theta, phi, (torch.softmax(phi, 0) * strength).sum().expand(4)).mean()
    (slope,) = torch.autograd.grad(expected_loss, theta, create_graph=True)
    (pulled,) = torch.autograd.grad(slope @ (2 * theta.detach()), phi)
    return torch.stack(found), -pulled


METHODS = [Reinforce(), Reinforce(baseline="ema"), Reinforce(samples=3), Reinforce(samples=3, baseline="none")]


@pytest.mark.parametrize(
    "method", [*METHODS[:2], *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[2:])], ids=str
)
def test_the_mean_of_1000_estimates_one_after_another(method: Reinforce) -> None:
    within_standard_errors(*one_after_another(method, 1000))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_mean_of_20000_estimates_one_after_another(method: Reinforce) -> None:
    within_standard_errors(*one_after_another(method, MANY))


def committed() -> dict[tuple[str, int, bool], float]:
    """Errors by baseline, draws and whether each example is credited, off the page."""
    page = (ROOT / "docs" / "reinforce-variance.md").read_text()
    rows = re.findall(r"\| `(\w+)` \| (\d+) \| ([\d.]+) \([\d.]+\) \| ([\d.]+) \([\d.]+\) \|", page)
    assert len(rows) == 6
    return {(b, int(n), each): float(v) for b, n, *cells in rows for each, v in zip((False, True), cells, strict=True)}


ORDER = [
    (("none", 1, True), ("ema", 1, False)),  # credit per example is worth more than any baseline
    (("loo", 16, True), ("loo", 4, True)),
    (("loo", 4, True), ("none", 4, True)),
    (("none", 4, True), ("none", 1, True)),
    (("loo", 4, True), ("loo", 16, False)),
    (("ema", 1, False), ("none", 1, False)),
    (("loo", 4, False), ("none", 4, False)),
    (("ema", 4, False), ("none", 4, False)),
]


def test_the_table_says_what_the_page_says() -> None:
    table = committed()
    for better, worse in ORDER:
        assert table[better] < table[worse]


def test_the_table_is_what_the_script_measures() -> None:
    path = ROOT / "benchmarks" / "reinforce_variance.py"
    spec = importlib.util.spec_from_file_location("reinforce_variance", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.set_default_dtype(torch.float32)  # as the script runs
    for (baseline, samples, per_example), said in committed().items():
        if samples > 4:
            continue
        measured = script.measure(baseline, samples, per_example, steps=150)
        assert measured.error == pytest.approx(said, rel=0.25)
        assert measured.bias < 1.6  # 32 entries: their root mean square is 1 +- 0.13
