"""Fused attention: it draws random numbers for dropout alone, and has no second derivatives."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from multilevel import CG, Darts, Identity, ProblemError, best_response
from multilevel.engine.compiled.graphs import draws
from multilevel.hypergrad.cg import cg

from ...givens import Given
from .builds import batches, bilevel, judge
from .twins import Build, Twins

SHORT = functools.partial(batches, 4, 3)
"""Four words of three numbers; the last is the target."""


class Attentive(nn.Module):
    """One head over the rows of a batch."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(2, 6), nn.Linear(2, 1)
        self.dropout = dropout

    def forward(self, words: Tensor) -> Tensor:
        query, key, value = self.project(words)[None, None].chunk(3, dim=-1)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout)
        return self.out(seen[0, 0])


def fit(problem: Given, batch: Tensor) -> Any:
    """Least squares, with a strength on every parameter."""
    loss = (problem.module(batch[:, :2]) - batch[:, 2:]).square().mean()
    return loss + problem.upper().exp().mean() * sum(p.square().sum() for p in problem.module.parameters()) / 20


def fit_unfused(problem: Given, batch: Tensor) -> Any:
    """The same, by operations that have derivatives of any order."""
    with sdpa_kernel(SDPBackend.MATH):
        return fit(problem, batch)


def attentive(method: Any, *, lower: Any = fit, dropout: float = 0.0, **settings: Any) -> Build:
    return bilevel(method, lower=lower, upper=judge, module=lambda: Attentive(dropout), data=SHORT(), **settings)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("method", ["darts", "sama", "identity"])
def test_a_step_with_attention_is_compiled(method: str) -> None:
    twins = Twins(attentive(method))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.slow
def test_a_step_with_attention_is_compiled_for_real() -> None:
    twins = Twins(attentive("darts"))
    twins.step()
    twins.assert_equal(within=1e-7)
    twins.assert_compiled()


@pytest.mark.usefixtures("recorded")
def test_dropout_within_attention() -> None:
    """On the host that is a draw like any other."""
    twins = Twins(attentive("darts", dropout=0.5))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()


def test_what_draws() -> None:
    fused, drop = torch.ops.aten._scaled_dot_product_flash_attention.default, torch.ops.aten.bernoulli_.float
    assert not draws(fused, (0, 0, 0), {})
    assert not draws(fused, (0, 0, 0, 0.0), {"scale": 2.0})
    assert draws(fused, (0, 0, 0, 0.1), {})
    assert draws(fused, (0, 0, 0), {"dropout_p": 0.1})
    assert draws(drop, (0, 0.5), {})
    assert not draws(torch.ops.aten.mm.default, (0, 0), {})


@pytest.mark.parametrize("method", [CG(2, damping=0.5), "exact", "unroll"], ids=["cg", "exact", "unroll"])
def test_a_method_that_differentiates_twice_says_what_to_do(method: Any) -> None:
    engine = Twins(attentive(method, unroll_steps=2), train_iters=2).eager
    with pytest.raises(ProblemError, match=r"problem 'lower': \w+ differentiates .*attention.*sdpa_kernel"):
        engine.run()


def test_so_does_an_audit_of_a_run_that_takes_differences() -> None:
    engine = Twins(attentive("darts"), train_iters=1).eager
    engine.run()
    with pytest.raises(ProblemError, match=r"problem 'lower': the audit differentiates .*attention.*sdpa_kernel"):
        engine.audit("upper")


def test_so_does_a_response_without_an_engine() -> None:
    module, weight, words = Attentive(), torch.ones((), requires_grad=True), torch.randn(4, 2)
    names, values = zip(*module.named_parameters(), strict=True)

    def objective(solution: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        seen = torch.func.functional_call(module, dict(zip(names, solution, strict=True)), words)
        return weight * seen.square().mean()

    def differentiate(method: Any) -> None:
        response = best_response(objective, values, weight, method=method)
        torch.stack([t.sum() for t in response]).sum().backward()

    with pytest.raises(ProblemError, match=r"best_response: identity differentiates .*attention.*sdpa_kernel"):
        differentiate(Identity())
    differentiate(Darts())
    assert weight.grad is not None


def test_so_does_a_method_that_is_called_by_itself() -> None:
    engine = Twins(attentive("darts"), train_iters=1).eager
    engine.run()
    lower, upper = engine["lower"], engine["upper"]
    with pytest.raises(ProblemError, match=r"problem 'lower': \w+ differentiates .*attention.*sdpa_kernel"):
        cg([torch.ones_like(p) for p in lower.parameters], lower, upper)


@pytest.mark.usefixtures("recorded")
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
def test_and_that_is_so() -> None:
    twins = Twins(attentive(CG(2, damping=0.5), lower=fit_unfused))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()
