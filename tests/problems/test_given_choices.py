"""``self.sample(distribution, value=...)``: choices that were made before, where nothing could be differentiated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from multilevel import Config, Problem
from multilevel.hypergrad.errors import ProblemError


class Policy(Problem):
    def training_step(self, batch: Any) -> Any:
        states, actions, rewards = batch
        self.sample(Categorical(logits=self.module(states)), value=actions)
        return {"reward": rewards}


def policy() -> Policy:
    module = nn.Linear(2, 3)
    problem = Policy(
        "policy",
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        config=Config(estimator="score"),
    )
    problem.bind()
    return problem


def test_the_gradient_is_that_of_reinforce():
    problem, states = policy(), torch.randn(5, 2)
    actions, rewards = torch.tensor([0, 2, 1, 1, 0]), torch.randn(5)
    evaluation = problem.level.evaluate({}, _moment(problem, (states, actions, rewards)))
    likelihoods = problem.module(states).log_softmax(-1)[torch.arange(5), actions]
    expected = torch.autograd.grad(-(rewards * likelihoods).mean(), problem.parameters)
    torch.testing.assert_close(torch.autograd.grad(evaluation.loss, problem.parameters), expected)


def test_a_shape_that_would_be_broadcast_is_refused():
    problem = policy()
    batch = torch.randn(5, 2), torch.zeros(5, 1, dtype=torch.long), torch.randn(5)
    with pytest.raises(ProblemError, match=r"shape of a sample, \(5,\), got \(5, 1\)"):
        problem.level.evaluate({}, _moment(problem, batch))


def _moment(problem: Policy, batch: Any) -> Any:
    problem.get_batch = lambda: batch  # type: ignore[method-assign]
    return problem.level.next_moment()
