"""Meta-learned initialisation: each inner loop starts where an upper says, and unroll differentiates that start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import Config, Engine, EngineConfig, Problem, ProblemError, Unroll

from ..conftest import EXACT, FINITE_DIFFERENCE

STEPS = 3


class Weights(nn.Module):
    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first = nn.Parameter(first.clone())
        self.second = nn.Parameter(second.clone())


class Task(Problem):
    def initial_parameters(self) -> Sequence[Tensor]:
        start = self.meta.module
        return [torch.tanh(start.first), 2.0 * start.second]

    def training_step(self, batch: Tensor) -> Tensor:
        return loss(self.module.first, self.module.second, batch)


class Meta(Problem):
    def training_step(self, batch: Tensor) -> Tensor:
        return loss(self.task.module.first, self.task.module.second, batch) + 0.1 * (self.module.first**2).sum()


def loss(first: Tensor, second: Tensor, batch: Tensor) -> Tensor:
    return ((torch.sin(batch @ first) * second.sum() - 0.5) ** 2).mean()


def data() -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(STEPS + 1)]
    return draw[:STEPS], draw[STEPS:]


def start() -> tuple[Tensor, Tensor]:
    return torch.tensor([0.3, -0.8]), torch.tensor([0.5, 0.2, -0.1])


def engine(kind: type[torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> Engine:
    train, valid = data()
    below, above = Weights(torch.zeros(2), torch.zeros(3)), Weights(*start())
    task = Task("task", module=below, optimizer=kind(below.parameters(), lr=0.1, **options), train_data_loader=train)
    task.config = Config(type=Unroll(), unroll_steps=STEPS)
    meta = Meta("meta", module=above, optimizer=torch.optim.SGD(above.parameters(), lr=0.0), train_data_loader=valid)
    return Engine([meta, task], edges=[(meta, task)], config=EngineConfig(train_iters=STEPS))


def program(first: Tensor, second: Tensor, kind: type[torch.optim.Optimizer], **options: Any) -> Tensor:
    """The whole inner loop by torch.optim, then the upper's loss."""
    train, valid = data()
    module = Weights(torch.tanh(first), 2.0 * second)
    optimizer = kind(module.parameters(), lr=0.1, **options)
    for batch in train:
        optimizer.zero_grad()
        loss(module.first, module.second, batch).backward()
        optimizer.step()
    return (loss(module.first, module.second, valid[0]) + 0.1 * (first**2).sum()).detach()


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {})]
)
def test_the_derivative_is_that_of_the_program(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    run = engine(kind, **options)
    run.run()
    got = torch.cat(run.hypergradient("meta"))
    flat, expected, step = torch.cat(start()), torch.zeros(5), 1e-6
    for i in range(5):
        e = torch.zeros(5)
        e[i] = step
        up, down = (program((flat + s * e)[:2], (flat + s * e)[2:], kind, **options) for s in (1, -1))
        expected[i] = (up - down) / (2 * step)
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


def test_every_inner_loop_starts_anew() -> None:
    run = engine()
    seen = []

    class Watching(Task):
        def training_step(self, batch: Tensor) -> Tensor:
            seen.append(self.module.second.detach().clone())
            return super().training_step(batch)

    run["task"].__class__ = Watching
    for _ in range(2 * STEPS):
        run.step()
    torch.testing.assert_close(seen[0], 2.0 * start()[1], rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(seen[STEPS], seen[0], rtol=EXACT, atol=EXACT)  # the upper's learning rate is zero
    assert len(seen) == 2 * STEPS  # the derivative goes through the graphs of those evaluations
    assert not torch.allclose(seen[STEPS - 1], seen[0])


def test_wrong_shapes_are_refused() -> None:
    run = engine()
    run["task"].initial_parameters = lambda: [torch.zeros(2)]  # type: ignore[method-assign]
    with pytest.raises(ProblemError, match=r"initial_parameters\(\) must return one tensor per trainable parameter"):
        run.step()
