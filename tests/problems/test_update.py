"""A problem's own step: accumulation, clipping, callbacks, and what happens to the gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multilevel import Config, ConfigError
from multilevel.hypergrad.errors import ProblemError

from ..conftest import EXACT
from ..givens import Given, Vector, alone, assert_same, pair, square


def regression(problem: Given, batch: Any) -> Tensor:
    return F.mse_loss(problem.module(batch[0]), batch[1])


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def data(batches: int = 4, rows: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(rows, 3, generator=generator), torch.randn(rows, 1, generator=generator)) for _ in range(batches)
    ]


def trained(module: nn.Module, steps: int, loader: Any, **config: Any) -> list[Tensor]:
    problem = Given("p", regression, module, train_data_loader=loader, config=Config(**config))
    alone(problem, train_iters=steps).run()
    assert problem.count == steps
    return [p.detach() for p in module.parameters()]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_accumulation_is_one_step_on_the_mean(size: int) -> None:
    small = data(8)
    big = [(torch.cat([x for x, _ in part]), torch.cat([y for _, y in part])) for part in chunks(small, size)]
    got = trained(net(), 8, small, gradient_accumulation=size)
    expected = trained(net(), 8 // size, big)
    torch.testing.assert_close(got, expected, rtol=EXACT, atol=EXACT)


def chunks(items: list[Any], size: int) -> list[list[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def test_an_unfinished_accumulation_does_not_step() -> None:
    before = [p.detach().clone() for p in net().parameters()]
    assert_same(trained(net(), 3, data(), gradient_accumulation=4), before)


@pytest.mark.parametrize("clipping", [0.0, 1e-3, 0.5, 1e6])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("by", ["norm", "value"])
def test_clipping_is_that_of_torch(clipping: float, size: int, by: str) -> None:
    config = {"gradient_clipping": clipping, "gradient_clipping_by": by}
    got = trained(net(), 4, data(), gradient_accumulation=size, **config)
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for part in chunks(data(), size):
        optimizer.zero_grad()
        for x, y in part:
            (F.mse_loss(module(x), y) / size).backward()
        if clipping:
            clip = nn.utils.clip_grad_norm_ if by == "norm" else nn.utils.clip_grad_value_
            clip(module.parameters(), clipping)
        optimizer.step()
    torch.testing.assert_close(got, [p.detach() for p in module.parameters()], rtol=EXACT, atol=EXACT)


class Sum(nn.Module):
    """Two parameters with one gradient: autograd hands out the same tensor for both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    def forward(self) -> Tensor:
        return self.a + self.b


class Halving(Given):
    def grad_callback(self) -> None:
        for parameter in self.parameters:
            parameter.grad.mul_(0.5)


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_that_share_memory_are_clipped_once(size: int) -> None:
    problem = Given(
        "p",
        lambda p, b: 100 * p.module().sum(),
        Sum(),
        lr=1.0,
        config=Config(gradient_clipping=1.0, gradient_accumulation=size),
    )
    alone(problem, train_iters=size).run()
    torch.testing.assert_close(
        [p.detach() for p in problem.parameters], [torch.full((2,), 0.5)] * 2, rtol=1e-6, atol=1e-6
    )


def test_gradients_that_share_memory_can_be_edited() -> None:
    problem = Halving("p", lambda p, b: p.module().sum(), Sum(), lr=1.0)
    alone(problem, train_iters=1).run()
    assert_same([p.detach() for p in problem.parameters], [torch.full((2,), 0.5)] * 2)


class Watching(Given):
    def grad_callback(self) -> None:
        assert self.parameters[0].grad is not None
        self.events.append(f"grad {self.parameters[0].grad.item():g} at {self.module().item():g}")

    def param_callback(self) -> None:
        assert self.parameters[0].grad is None
        self.events.append(f"moved to {self.module().item():g}, lr {self.optimizer.param_groups[0]['lr']:g}")


def test_callbacks_come_once_an_optimizer_step_and_before_the_scheduler() -> None:
    module = Vector(4.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    problem = Watching(
        "p",
        square,
        module,
        optimizer=optimizer,
        scheduler=scheduler,
        config=Config(gradient_accumulation=2, gradient_clipping=1.0),
    )
    alone(problem, train_iters=4).run()
    assert problem.events == [
        "start",
        "grad 1 at 4",
        "moved to 3.5, lr 0.5",
        "start",
        "grad 1 at 3.5",
        "moved to 3.25, lr 0.25",
    ]


class Projecting(Given):
    def param_callback(self) -> None:
        with torch.no_grad():
            self.module.value.clamp_(min=0.9)


def test_param_callback_may_project() -> None:
    problem = Projecting("p", square)
    alone(problem, train_iters=5).run()
    assert problem.module().item() == 0.9


def test_nothing_is_left_in_grad() -> None:
    engine = pair(
        lambda p, b: (p.module() - p.upper()).square().sum(), lambda p, b: p.lower().square().sum(), method="cg"
    )
    engine.step()
    assert all(p.grad is None for problem in engine.problems.values() for p in problem.parameters)


def test_a_parameter_that_the_loss_does_not_read_stays() -> None:
    module = Sum()
    alone(Given("p", lambda p, b: p.module.a.square().sum(), module), train_iters=3).run()
    assert torch.equal(module.b, torch.ones(2))
    assert not torch.equal(module.a, torch.ones(2))


def test_upper_as_an_expanded_sum() -> None:
    engine = pair(
        lambda p, b: (p.module() * p.upper().sum()).sum() + square(p, b),
        lambda p, b: p.lower().sum(),
        method="darts",
        modules=(Vector(1.0, 2.0), Vector(1.0, 1.0)),
    )
    engine.step()  # no in-place write to an expanded gradient


def test_a_loss_without_parameters_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"problem 'p': its loss does not depend on any parameter.*detached"):
        alone(Given("p", lambda p, b: p.module().detach().sum())).step()


def test_state_keeps_an_unfinished_accumulation() -> None:
    problem, other = (Given("p", square, config=Config(gradient_accumulation=2)) for _ in range(2))
    engine, resumed = alone(problem), alone(other)
    for _ in range(3):
        engine.step()
    resumed.load_state_dict(engine.state_dict())
    engine.step()
    resumed.step()
    assert_same(other.module.state_dict(), problem.module.state_dict())
    assert other.level.update.steps == 2


def test_closures_and_accumulation_do_not_mix() -> None:
    module = Vector(1.0)
    problem = Given(
        "p", square, module, optimizer=torch.optim.LBFGS(module.parameters()), config=Config(gradient_accumulation=2)
    )
    with pytest.raises(ConfigError, match=r"LBFGS evaluates its loss again.*gradient_accumulation must be 1, got 2"):
        alone(problem)


def test_closures_see_clipped_and_edited_gradients() -> None:
    module, other = Vector(4.0), Vector(4.0)
    optimizer = torch.optim.LBFGS(other.parameters(), lr=0.1, max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = other().square().sum() / 2
        loss.backward()
        nn.utils.clip_grad_norm_(other.parameters(), 2.0)
        other.value.grad.mul_(0.5)
        return loss

    optimizer.step(closure)
    problem = Halving(
        "p",
        square,
        module,
        optimizer=torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3),
        config=Config(gradient_clipping=2.0),
    )
    alone(problem).step()
    assert_same(module.state_dict(), other.state_dict())


@pytest.mark.parametrize("by", ["norm", "value"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_sparse_gradients_are_clipped_like_dense_ones(accumulated: int, by: str) -> None:
    def of_entries(problem: Given, batch: Any) -> Tensor:
        return (problem.module(batch) - 2).square().sum()

    def after(*, sparse: bool) -> Tensor:
        torch.manual_seed(0)
        module = nn.Embedding(5, 3, sparse=sparse, dtype=torch.float64)
        loader = [torch.tensor([1, 1, 3]), torch.tensor([0, 3])]
        config = Config(gradient_clipping=0.3, gradient_clipping_by=by, gradient_accumulation=accumulated)
        alone(Given("p", of_entries, module, train_data_loader=loader, config=config), train_iters=4).run()
        return module.weight.detach()

    torch.testing.assert_close(after(sparse=True), after(sparse=False), rtol=EXACT, atol=EXACT)
