"""A part that is replaced under an engine is refused: the engine would go on with the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from multilevel import Config, Engine, ProblemError

from ..givens import Given, Vector, alone, square

REPLACED: dict[str, Callable[[Given], Any]] = {
    "module": lambda p: Vector(2.0),
    "optimizer": lambda p: SGD(p.module.parameters(), lr=0.0),
    "scheduler": lambda p: StepLR(p.optimizer, 1),
    "train_data_loader": lambda p: [1, 2],
    "config": lambda p: Config(unroll_steps=2),
}


@pytest.mark.parametrize("part", REPLACED)
def test_a_part_that_is_replaced(part: str) -> None:
    problem = Given("one", square)
    engine = alone(problem)
    engine.step()
    setattr(problem, part, REPLACED[part](problem))
    with pytest.raises(ProblemError, match=f"problem 'one': its {part} was replaced, .*build another engine"):
        engine.step()


def test_parameters_that_come_too_late() -> None:
    problem = Given("one", square)
    engine = alone(problem)
    problem.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ProblemError, match="its optimizer held 1 tensors when the engine took it up, and holds 2 now"):
        engine.step()


def test_another_engine_takes_up_what_is_there_then() -> None:
    problem = Given("one", square)
    alone(problem).step()
    problem.module = Vector(3.0)
    problem.optimizer = SGD(problem.module.parameters(), lr=0.5)
    engine = Engine([problem])
    engine.step()
    torch.testing.assert_close(problem.module.value.detach(), torch.tensor([1.5]))
    assert [p is problem.module.value for p in problem.trainable_parameters()] == [True]


def test_a_problem_that_draws_its_own_batches_may_replace_its_loader() -> None:
    class Draws(Given):
        def get_batch(self) -> Any:
            self.train_data_loader = [float(self.count)]
            return torch.tensor(self.train_data_loader[0])

    problem = Draws("one", lambda p, batch: (p.module() - batch).square().sum(), train_data_loader=[0.0])
    engine = alone(problem)
    for _ in range(3):
        engine.step()
    assert problem.train_data_loader == [2.0]


def test_a_loader_that_comes_late() -> None:
    problem = Given("one", square)
    engine = alone(problem)
    problem.train_data_loader = [1, 2]
    with pytest.raises(ProblemError, match="its train_data_loader was replaced"):
        engine.step()
