"""What the monitor adds are the norms that a computation by hand gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from multilevel import Callback, Config, Engine, EngineConfig
from multilevel.engine.callbacks import Monitor

from ...givens import Given, Vector, alone, hierarchy, pair
from .written import Written


class Before(Callback):
    """Keeps the parameters that each level step started from."""

    def __init__(self) -> None:
        self.values: dict[str, list[torch.Tensor]] = {}

    def on_gradients(self, engine: Engine, problem: Any, gradients: Any) -> None:
        now = {name: other.parameters[0].detach().clone() for name, other in engine.problems.items()}
        self.values.setdefault(problem.name, []).append(now)


def follow(problem: Given, batch: Any) -> torch.Tensor:
    """Loss with the solution y = x, and a second derivative of one in y."""
    return (problem.module() - problem.upper()).square().sum() / 2


def want(problem: Given, batch: Any) -> torch.Tensor:
    """With y = x: direct gradient 2x, and y - 1 through the lower."""
    return (problem.lower() - 1).square().sum() / 2 + problem.module().square().sum()


def watched(**parts: Any) -> tuple[Engine, Before, Written]:
    config = EngineConfig(train_iters=6, log_step=1, device="cpu")
    engine = pair(follow, want, modules=(Vector(0.5, -1.0), Vector(2.0, 3.0)), engine=config, **parts)
    before, written = Before(), Written()
    engine.callbacks.callbacks += [Monitor(), before, written]
    engine.run()
    return engine, before, written


def assert_norms(before: Before, written: Written, rtol: float = 1e-12) -> None:
    def check(problem: str, metric: str, by_hand: Any) -> None:
        expected = [by_hand(now["upper"], now["lower"]).norm().item() for now in before.values[problem]]
        assert written.of(problem, metric) == pytest.approx(expected, rel=rtol)

    check("lower", "gradient norm", lambda x, y: y - x)
    check("upper", "direct gradient norm", lambda x, y: 2 * x)
    check("upper", "swept gradient norm", lambda x, y: y - 1)
    check("upper", "hypergradient norm", lambda x, y: 2 * x + y - 1)


def test_norms_are_those_computed_by_hand():
    _, before, written = watched()
    assert_norms(before, written)
    assert written.of("lower", "lr") == [0.1] * 6
    names = [set(r.metrics) for r in written.records[:2]]
    assert {"loss", "lr", "gradient norm"} in names
    assert {"loss", "lr", "hypergradient norm", "direct gradient norm", "swept gradient norm"} in names


def test_accumulated_and_clipped_gradients_are_measured_batch_by_batch_as_they_were():
    engine = hierarchy({"upper": ["lower"]}, lower={"gradient_accumulation": 3, "gradient_clipping": 1e-3})
    engine.config = EngineConfig(train_iters=6, log_step=1, device="cpu")
    written, sizes = Written(), []

    class Sizes(Callback):
        def on_gradients(self, engine, problem, gradients):
            if problem.name == "lower":
                sizes.append(gradients.total[0].abs().item())

    engine.callbacks.callbacks += [Monitor(), Sizes(), written]
    engine.run()
    assert written.of("lower", "gradient norm") == sizes
    assert min(sizes) > 1e-3


def test_scaled_gradients_are_measured_unscaled():
    torch.set_default_dtype(torch.float32)
    half = Config(type="identity", precision="fp16")
    engine = Engine(
        [Given("upper", want, Vector(2.0, 3.0), config=half), Given("lower", follow, Vector(0.5, -1.0), config=half)],
        edges=[("upper", "lower")],
        config=EngineConfig(train_iters=6, log_step=1, device="cpu"),
        callbacks=[Monitor(), before := Before(), written := Written()],
    )
    engine.run()
    assert engine["lower"].level.update.scaler.get_scale() > 1000
    assert_norms(before, written, rtol=1e-2)


@pytest.mark.parametrize("own", [-1, 3])
def test_sparse_gradients_are_measured_where_an_index_comes_twice(own):
    def loss(problem: Given, batch: Any) -> torch.Tensor:
        return problem.module(torch.tensor([0, 2, 2])).sum()

    table = nn.Embedding(4, 5, sparse=True)
    problem = Given("table", loss, table, config=Config(log_step=own))
    engine = alone(problem, train_iters=3, log_step=3, device="cpu")
    engine.callbacks.callbacks += [Monitor(), written := Written()]
    engine.run()
    assert written.of("table", "gradient norm") == pytest.approx([math.sqrt(5 * (1 + 4))])


def test_a_loss_that_does_not_depend_on_its_own_parameters_has_a_direct_gradient_of_zero():
    def far(problem: Given, batch: Any) -> torch.Tensor:
        return (problem.lower() - 1).square().sum() / 2

    engine = pair(follow, far, engine=EngineConfig(train_iters=1, device="cpu"))
    engine.callbacks.callbacks += [Monitor(), written := Written()]
    engine.run()
    assert written.of("upper", "direct gradient norm") == [0.0]
    assert written.of("upper", "hypergradient norm") == written.of("upper", "swept gradient norm")


def test_the_rate_is_the_one_that_the_step_was_taken_with():
    class Two(Vector):
        def __init__(self) -> None:
            super().__init__(1.0)
            self.other = nn.Parameter(torch.ones(1))

    def loss(problem: Given, batch: Any) -> torch.Tensor:
        return (problem.module.value * problem.module.other).sum() * 1e-3

    class Grouped(Given):
        def configure_optimizer(self):
            groups = [{"params": [self.module.value], "lr": 1.0}, {"params": [self.module.other], "lr": 0.5}]
            return torch.optim.SGD(groups)

        def configure_scheduler(self):
            return torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=1, gamma=0.5)

    engine = alone(Grouped("only", loss, Two()), train_iters=3, log_step=1, device="cpu")
    engine.callbacks.callbacks += [Monitor(), written := Written()]
    engine.run()
    assert written.of("only", "lr 0") == [1.0, 0.5, 0.25]
    assert written.of("only", "lr 1") == [0.5, 0.25, 0.125]


def test_a_rate_in_a_tensor_is_kept_as_it_was():
    class Tensors(Given):
        def configure_optimizer(self):
            return torch.optim.Adam(self.module.parameters(), lr=torch.tensor(0.5))

    problem = Tensors("only", lambda p, batch: p.module().square().sum())
    engine = alone(problem, train_iters=1, device="cpu")
    engine.callbacks.callbacks += [Monitor(), written := Written()]
    engine.run()
    problem.optimizer.param_groups[0]["lr"].fill_(9)
    assert written.of("only", "lr") == [0.5]
