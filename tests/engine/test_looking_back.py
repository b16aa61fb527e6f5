"""Looking back at a step finds what was there then, and nothing of it shows in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from multilevel import Config, Engine, EngineConfig, NumericsWarning, Unroll
from multilevel.hypergrad.cg import cg

from ..conftest import EXACT
from ..givens import Given, Vector, alone, assert_same, bits, chain

STEPS = 3


def spectral() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(spectral_norm(nn.Linear(3, 3)), nn.Tanh(), nn.Linear(3, 1))


def smoothed(problem: Given, batch: Any) -> Tensor:
    """Each evaluation moves the buffers that the next one reads."""
    return (problem.module(torch.ones(2, 3)) - problem.upper()).square().mean() * (1 + problem.count)


def loop(**method: Any) -> Engine:
    lower = Given("lower", smoothed, spectral(), config=Config(type=Unroll(**method), unroll_steps=STEPS))
    upper = Given("upper", lambda p, b: p.lower.module(torch.ones(1, 3)).square().mean(), Vector(0.7))
    return Engine([upper, lower], edges=[("upper", "lower")], config=EngineConfig(train_iters=2 * STEPS))


@pytest.mark.parametrize("checkpoints", ["graphs", "all", "sqrt"])
def test_buffers_and_counts_of_steps_that_are_taken_again(checkpoints: str) -> None:
    """By hand: the loop as one graph, the power iteration of the norm going on from step to step."""
    run = loop(checkpoints=checkpoints)
    net, phi = spectral(), torch.tensor([0.7], requires_grad=True)
    theta = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    buffers = dict(net.named_buffers())
    for count in range(STEPS):
        out = torch.func.functional_call(net, {**theta, **buffers}, (torch.ones(2, 3),))
        loss = (out - phi).square().mean() * (1 + count)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: p - 0.1 * g for (name, p), g in zip(theta.items(), gradients, strict=True)}
        if count < STEPS - 1:
            run.step()
    loss = torch.func.functional_call(net, {**theta, **buffers}, (torch.ones(1, 3),)).square().mean()
    (expected,) = torch.autograd.grad(loss, phi)
    seen: list[Tensor] = []
    run["upper"].grad_callback = lambda: seen.append(run["upper"].parameters[0].grad.clone())  # type: ignore[method-assign]
    run.step()
    torch.testing.assert_close(seen[0], expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("checkpoints", ["graphs", "all"])
def test_a_look_and_a_resume_within_a_loop_change_no_bit(checkpoints: str) -> None:
    whole, looked, resumed = (loop(checkpoints=checkpoints) for _ in range(3))
    for _ in range(2 * STEPS):
        whole.step()
    for k in range(2 * STEPS):
        looked.step()
        if k != STEPS - 1:  # there the loop has just ended
            looked.hypergradient("upper")
        if k == 1:
            resumed.load_state_dict(looked.state_dict())
    for _ in range(2 * STEPS - 2):
        resumed.step()
    assert_same(bits(resumed), bits(looked))
    assert_same([p.detach() for p in looked["lower"].parameters], [p.detach() for p in whole["lower"].parameters])


def test_buffers_of_a_neighbours_neighbour_stay() -> None:
    low = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))

    class Middle(Given):
        def forward(self, x: Tensor) -> Tensor:
            return self.module() * self.low.module(x).detach().mean()

    problems = [
        Given("top", lambda p, b: (p.mid(torch.randn(4, 1)) - p.module()).square().sum()),
        Middle("mid", lambda p, b: (p.module() - p.top.module()).square().sum() + p.low.module[0].weight.sum()),
        Given("low", lambda p, b: p.module(torch.randn(4, 1)).square().mean() * p.mid.module().sum(), low),
    ]
    run = Engine(problems, edges=chain("top", "mid", "low"))
    run.step()
    before = {name: buffer.clone() for name, buffer in low.named_buffers()}
    run.hypergradient("top")
    assert_same(dict(low.named_buffers()), before)


class FailsError(Exception):
    pass


@pytest.mark.parametrize("checkpoints", ["graphs", "all"])
def test_a_step_that_failed_is_no_part_of_the_loop(checkpoints: str) -> None:
    def stepping(problem: Given, batch: Any) -> Tensor:
        if problem.count == 1 and problem.__dict__.pop("fails", False):
            raise FailsError
        return (problem.module() * problem.upper()).square().sum()

    ends = []
    for fails in (True, False):
        lower = Given("lower", stepping, config=Config(type=Unroll(checkpoints=checkpoints), unroll_steps=STEPS))  # type: ignore[arg-type]
        lower.fails = fails
        upper = Given("upper", lambda p, b: p.lower().square().sum(), Vector(0.7))
        run = Engine([upper, lower], edges=[("upper", "lower")], config=EngineConfig(train_iters=2 * STEPS))
        while lower.count < STEPS:
            try:
                run.step()
            except FailsError:
                assert fails
        ends.append([p.detach() for p in run["upper"].parameters])
    assert_same(*ends)


def test_a_metric_shows_a_parameter_as_it_was_in_the_step() -> None:
    def shown(problem: Given, batch: Any) -> Any:
        return {"loss": problem.module().square().sum(), "own": problem.module.value, "part": problem.module.value[0]}

    run = alone(Given("one", shown, Vector(1.0)))
    run.step()
    metrics = run.last_metrics["one"]
    assert (float(metrics["own"]), float(metrics["part"])) == (1.0, 1.0)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_hooks_that_wait_for_a_gradient_are_called(accumulation: int) -> None:
    problem = Given("one", lambda p, b: 10 * p.module().sum(), config=Config(gradient_accumulation=accumulation))
    run = alone(problem)
    problem.module.value.register_post_accumulate_grad_hook(lambda p: p.grad.clamp_(max=1.0))
    for _ in range(accumulation):
        run.step()
    torch.testing.assert_close(problem.module.value.detach(), torch.tensor([0.9]))


def test_lowers_of_a_problem_without_an_engine_are_said_to_stay() -> None:
    top, mid, low = (Given(name, lambda p, b: p.module().square().sum()) for name in ("top", "mid", "low"))
    low.bind(uppers=[mid])
    mid.bind(uppers=[top], lowers=[low])
    mid.loss = lambda p, b: (p.module() - p.top.module()).square().sum()
    top.bind(lowers=[mid])
    with pytest.warns(NumericsWarning, match="problem 'mid' is differentiated outside of an engine, with 'low' below"):
        cg([torch.ones(1)], mid, top)
