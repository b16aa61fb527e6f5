"""A loss that does not come again is said once; what is replayed comes again, and nothing is left behind."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multilevel import Config, Engine, EngineConfig, NumericsWarning, ProblemError
from multilevel.engine.repeatability import Repeatability

from ..conftest import EXACT
from ..givens import Given, Vector, assert_same, bits, pair

Step = Callable[[Given], Tensor]
ONCE_MORE = "problem 'lower': training_step gives .* and, evaluated again on the same batch, parameters"


def read_lower(problem: Given, batch: Any) -> Tensor:
    return problem.lower.module().square().sum()


def engine(extra: Step, method: Any = "identity", **config: Any) -> Engine:
    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper()).square().sum() + problem.upper().sum() * extra(problem)

    return pair(lower, read_lower, method=method, engine=EngineConfig(train_iters=4, **config))


def own_numpy() -> Step:
    generator = np.random.default_rng(0)
    return lambda problem: problem.module().sum() * generator.random()


def own_torch() -> Step:
    generator = torch.Generator().manual_seed(0)
    return lambda problem: problem.module().sum() * torch.rand((), generator=generator)


def calls() -> Step:
    made: list[int] = []
    return lambda problem: problem.module().sum() * len(made.append(1) or made)


def replayed(problem: Given) -> Tensor:
    noise = random.random() + np.random.rand() + torch.rand(())
    return nn.functional.dropout(problem.module(), 0.5).sum() * noise * (1 + problem.count)


def chosen(problem: Given) -> Tensor:
    return sum((p.square().sum() for p in problem.module.parameters() if p.requires_grad), torch.zeros(()))


def all_of_them(problem: Given) -> Tensor:
    return sum((p.square().sum() for p in problem.trainable_parameters()), torch.zeros(()))


def own_gradient(problem: Given) -> Tensor:
    (gradient,) = torch.autograd.grad(problem.module().pow(3).sum(), problem.module.value, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize("make", [own_numpy, own_torch, calls])
@pytest.mark.parametrize("method", ["identity", "darts", "cg"])
def test_what_is_not_replayed_is_said_once(make: Callable[[], Step], method: str) -> None:
    with pytest.warns(NumericsWarning, match=ONCE_MORE) as caught:
        engine(make(), method).run()
    assert len([w for w in caught if "evaluated again" in str(w.message)]) == 1


@pytest.mark.parametrize("method", ["identity", "darts", "cg", "unroll"])
@pytest.mark.parametrize("extra", [replayed, all_of_them])
def test_what_is_replayed_comes_again(extra: Step, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(extra, method).run()


@pytest.mark.parametrize("method", ["darts", "sama"])
def test_parameters_that_are_chosen_by_requires_grad(method: str) -> None:
    """A finite difference evaluates them where they require none."""
    with pytest.warns(NumericsWarning, match=ONCE_MORE):
        engine(chosen, method).step()


@pytest.mark.parametrize("method", ["identity", "cg", "unroll"])
def test_all_ways_to_name_the_parameters_are_one(method: str) -> None:
    ends = []
    for extra in (chosen, all_of_them, lambda problem: problem.module().square().sum()):
        run = engine(extra, method)
        run.run()
        ends.append(run["upper"].module.value.detach())
    torch.testing.assert_close(ends[0], ends[2], rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(ends[1], ends[2], rtol=EXACT, atol=EXACT)


def test_a_step_that_takes_derivatives_of_its_own() -> None:
    engine(own_gradient, "cg").run()
    with pytest.raises(
        ProblemError, match="problem 'lower': darts evaluates training_step where parameters require no"
    ):
        engine(own_gradient, "darts").step()


@pytest.mark.parametrize("late", [lambda: np.random.rand(), random.random], ids=["numpy", "python"])
def test_numbers_of_the_host_that_are_first_drawn_later_are_replayed(late: Callable[[], float]) -> None:
    """After the first such step, in which it is found out."""

    def lower(problem: Given, batch: Any) -> Tensor:
        problem.noise = late() if problem.count >= 2 else 1.0
        seen.append(problem.noise)
        return (problem.module() - problem.upper() * problem.noise).square().sum()

    seen: list[float] = []
    run = pair(lower, read_lower, method="identity", engine=EngineConfig(train_iters=6))
    for _ in range(4):
        run.step()
    seen.clear()
    run.step()
    assert len(set(seen)) == 1, "in training, and in the sweep"


def test_a_count_is_that_of_the_step_that_is_looked_back_at() -> None:
    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper() * (-1) ** problem.count).square().sum()

    def by_hand(count: int) -> Tensor:
        return torch.tensor([2.0 * (-1) ** count])

    run = pair(lower, read_lower, method="identity", engine=EngineConfig(train_iters=6))
    for count in range(4):
        run.step()
        value = run["lower"].module.value.detach()
        torch.testing.assert_close(run.hypergradient("upper")[0], by_hand(count) * 2 * value)
        assert run["lower"].count == count + 1


def test_a_batch_that_is_written_to_after_it_was_trained_on() -> None:
    buffer = torch.zeros(1)

    class Filled(Given):
        def get_batch(self) -> Tensor:
            return buffer.fill_(1.0 if self.name == "lower" else 2.0)

    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper() * batch).square().sum()

    low = Filled("lower", lower, Vector(1.0), config=Config(type="identity"))
    run = Engine([Filled("upper", read_lower, Vector(1.0)), low], edges=[("upper", "lower")])
    with pytest.raises(ProblemError, match="problem 'lower': its batch was written to after it was trained on"):
        run.step()


def test_looking_again_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
        lower = lambda p, b: (p.module(torch.randn(4, 2)) * p.upper() * random.random()).square().mean()  # noqa: E731
        upper = lambda p, b: p.lower(torch.ones(2, 2)).square().mean() * np.random.rand()  # noqa: E731
        run = pair(lower, upper, method="cg", modules=(net, Vector(1.0)), engine=EngineConfig(train_iters=3))
        run.run()
        ends.append(bits(run))
        monkeypatch.setattr(Repeatability, "look", lambda self, name, loss: None)
    assert_same(*ends)
