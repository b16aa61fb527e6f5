"""A loss that is evaluated elsewhere: the same random numbers, no trace, also after an error and in any precision."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multilevel import Config, ConfigError, Engine, NumericsWarning, Problem, ProblemError
from multilevel.hypergrad.darts import darts

from ..givens import Given, Vector, alone, assert_same, pair

INPUTS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 1)).to(dtype)


def noisy(problem: Given, batch: Any) -> Tensor:
    """Every kind of random number in one loss."""
    dtype = next(problem.module.parameters()).dtype
    scale = random.random() + np.random.rand()
    return problem.module(INPUTS.to(dtype)).square().mean() * scale


def everything(problem: Given) -> Any:
    parameters = [(p, p.grad) for p in problem.module.parameters()]
    return [
        [(p.clone(), None if g is None else g.clone()) for p, g in parameters],
        [b.clone() for b in problem.module.buffers()],
        problem.optimizer.state_dict(),
        [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].astype(np.int64)), random.getstate()],
        (problem.count, problem.level.batches.position, problem.level.batches.epoch),
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluation_leaves_no_trace(dtype: torch.dtype, fails: bool) -> None:
    state: dict[str, bool] = {"raise": False}

    def loss(problem: Given, batch: Any) -> Tensor:
        value = noisy(problem, batch)
        if state["raise"]:
            raise ZeroDivisionError
        return value

    problem = Given("p", loss, net(dtype))
    engine = alone(problem)
    for _ in range(2):
        engine.step()
    torch.rand(1), np.random.rand(), random.random()  # not where the step left off
    objects = [id(t) for t in (*problem.module.parameters(), *problem.module.buffers())]
    before, state["raise"] = everything(problem), fails
    shifted = {"p": tuple(p.detach() + 1 for p in problem.parameters)}
    for _ in range(2):
        if fails:
            with pytest.raises(ZeroDivisionError):
                problem.level.evaluate(shifted)
        else:
            problem.level.evaluate(shifted)
    assert_same(everything(problem), before)
    assert [id(t) for t in (*problem.module.parameters(), *problem.module.buffers())] == objects


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_evaluations_see_the_random_numbers_of_the_step(dtype: torch.dtype) -> None:
    problem = Given("p", noisy, net(dtype), lr=0.0)
    engine = alone(problem)
    engine.step()
    shown = engine.last_metrics["p"]["loss"]
    first, second = (problem.level.evaluate({}).loss for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first.detach(), shown)  # the masks, the scale and the batch of the step
    torch.rand(1)
    assert torch.equal(problem.level.evaluate({}).loss, first)


def test_both_sides_of_a_difference_see_the_same_random_numbers() -> None:
    def lower(problem: Given, batch: Any) -> Tensor:
        mask = nn.functional.dropout(torch.ones(3), 0.5) * random.random() * np.random.rand()
        return (mask * problem.module() * problem.upper()).sum()

    engine = pair(lower, lambda p, b: p.lower().sum(), method="darts", modules=(Vector(1.0, 2.0, 3.0), None))
    engine._stepper.advance("lower")
    random_state = engine["lower"].level.moment.random
    first = engine.hypergradient("upper")
    random_state.restore()
    mask = nn.functional.dropout(torch.ones(3), 0.5) * random.random() * np.random.rand()
    torch.testing.assert_close(first, (-mask.sum().reshape(1),), rtol=1e-9, atol=1e-9)


def test_running_statistics_move_once_a_step() -> None:
    low, up = net(), net()

    def lower(problem: Given, batch: Any) -> Tensor:
        return problem.module(INPUTS).square().mean() * problem.upper(INPUTS).exp().mean()

    for method in ("darts", "identity"):
        engine = pair(lower, lambda p, b: (p.lower(INPUTS) - 1).square().mean(), method=method, modules=(low, up))
        before = int(low[1].num_batches_tracked), int(up[1].num_batches_tracked)
        engine.step()
        after = int(low[1].num_batches_tracked), int(up[1].num_batches_tracked)
        # The lower runs in its own step and in the upper's; the upper in the lower's. No difference or product counts.
        assert (after[0] - before[0], after[1] - before[1]) == (2, 1)


READS: list[Callable[[Problem], Tensor]] = [
    lambda problem: problem.module.weight,
    lambda problem: problem.parameters[0],
]


@pytest.mark.parametrize("read", READS, ids=["self.module.weight", "self.parameters"])
@pytest.mark.parametrize("method", ["darts", "neumann", "cg", "exact"])
def test_a_weight_read_in_a_regularizer_is_the_one_that_stands_in(
    method: str, read: Callable[[Problem], Tensor]
) -> None:
    """(w - 1)^2 / 2 + exp(phi) w^2 / 2, w read without a call: H = 1 + exp(phi), B = exp(phi) w."""

    def lower(problem: Given, batch: Any) -> Tensor:
        weight = read(problem)
        return (weight - 1).square().sum() / 2 + (problem.upper.module.value.exp() * weight.square()).sum() / 2

    module, phi = nn.Linear(1, 1, bias=False), torch.tensor(0.3)
    engine = pair(lower, lambda p, b: read(p.lower).sum(), method=method, modules=(module, Vector(phi.item())))
    weight = module.weight.item()
    inverse = {"darts": 1.0, "neumann": 1 + (1 - (1 + phi.exp().item()))}.get(method, 1 / (1 + phi.exp().item()))
    expected = -phi.exp().item() * weight * inverse
    with pytest.warns(NumericsWarning) if method == "neumann" else nullcontext():
        (got,) = engine.hypergradient("upper")
    torch.testing.assert_close(got, torch.tensor([expected]), rtol=1e-9, atol=1e-9)


def test_bf16_precision_computes_in_bf16_on_parameters_of_full_precision() -> None:
    seen: list[torch.dtype] = []

    def loss(problem: Given, batch: Any) -> Tensor:
        out = problem.module(torch.ones(2, 3, dtype=torch.float32))
        seen.append(out.dtype)
        return out.float().square().mean()

    module = nn.Linear(3, 1).float()
    problem = Given("p", loss, module, config=Config(precision="bf16"))
    alone(problem).step()
    problem.level.evaluate({})
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert module.weight.dtype == torch.float32


class Meta(Given):
    """Starts each inner loop at its upper's parameters."""

    start: Any = None

    def initial_parameters(self) -> Any:
        return self.start() if self.start is not None else (self.upper(),)


def meta() -> Engine:
    lower = Meta("lower", lambda p, b: (p.module() - p.upper() - 1).square().sum() / 2, config=Config(unroll_steps=3))
    return Engine([lower, Given("upper", lambda p, b: p.lower().square().sum())], edges=[("upper", "lower")])


def test_initial_parameters_are_set_at_each_inner_loop() -> None:
    engine = meta()
    lower, upper = engine["lower"], engine["upper"]
    for _ in range(2):
        start = upper.module().item()
        assert start != lower.module().item() or engine.step_count == 0
        engine.step()
        assert lower.module().item() == pytest.approx(start + 0.1)
        engine.step()
        engine.step()
    assert lower.events == ["start", "start"]


@pytest.mark.parametrize("start", [lambda: (), lambda: (torch.ones(2),)], ids=["too few", "wrong shape"])
def test_initial_parameters_that_do_not_fit(start: Any) -> None:
    engine = meta()
    engine["lower"].start = start
    with pytest.raises(ProblemError, match=r"initial_parameters\(\) must return one tensor per trainable parameter"):
        engine.step()


def bound(*, with_upper: bool = True) -> tuple[Given, Given]:
    upper = Given("upper", lambda p, b: p.module().sum(), Vector(2.0))
    lower = Given("lower", lambda p, b: (p.module() * upper()).sum(), Vector(3.0), config=Config(type="darts"))
    upper.bind()
    lower.bind(uppers=[upper] if with_upper else [])
    return lower, upper


def test_methods_work_without_an_engine() -> None:
    lower, upper = bound()
    (got,) = darts([torch.tensor([5.0])], lower, upper)
    torch.testing.assert_close(got, torch.tensor([-5.0]), rtol=1e-9, atol=1e-9)


def test_an_upper_that_was_not_bound_is_refused() -> None:
    lower, upper = bound(with_upper=False)
    with pytest.raises(ConfigError, match=r"'lower': its best response does not depend on 'upper'.*no other problem"):
        darts([torch.tensor([5.0])], lower, upper)


def scales_its_batch(problem: Given, batch: Any) -> Tensor:
    (inputs,) = batch["inputs"]
    inputs.div_(10)
    return (problem.module.value - problem.upper.module.value * inputs.mean()).square().sum()


def test_a_step_that_writes_to_its_batch_is_refused_where_it_is_evaluated_again() -> None:
    data = [{"inputs": [torch.ones(3)]}]
    engine = pair(scales_its_batch, lambda p, b: p.lower.module.value.sum(), train_data_loader=data)
    with pytest.raises(ProblemError, match=r"'lower': training_step writes to its batch in place, .* x = x / 255"):
        engine.step()


def test_a_step_that_nobody_evaluates_again_may_write_to_its_batch() -> None:
    def step(problem: Given, batch: Tensor) -> Tensor:
        return (problem.module.value - batch.mul_(2).mean()).square().sum()

    alone(Given("p", step, train_data_loader=[torch.ones(3)])).step()


@pytest.mark.parametrize("method", ["identity", "cg", "exact", "neumann"])
def test_a_step_that_writes_to_its_parameters_is_refused_where_it_is_evaluated_again(method: str) -> None:
    def clamped(problem: Given, batch: Any) -> Tensor:
        with torch.no_grad():
            problem.module.value.clamp_(max=0.5)
        return (problem.module.value - problem.upper.module.value).square().sum() / 2

    engine = pair(clamped, lambda p, b: p.lower.module.value.sum(), method=method)
    with pytest.raises(ProblemError, match=r"'lower': training_step writes to its parameters, .* in param_callback"):
        engine.hypergradient("upper")
