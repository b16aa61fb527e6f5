"""Hierarchies whose problems sample: engines with forced outcomes, and the expected losses summed by hand.

The sums are plain torch and go to :mod:`oracles`; the engines go through ``self.sample`` with an outcome in place of
the random number, once per outcome, weighted by its probability.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import logsigmoid, one_hot

from multilevel import Config, Engine, EngineConfig, Problem
from multilevel.hypergrad.reinforce import Reinforce

from .generic import Vector
from .oracles import Edges, Field, Hierarchy, Values


@dataclass(frozen=True)
class Chance:
    """One problem.

    Attributes:
        value: Its vector.
        loss: Of the vectors and the outcome (0/1 entries, or one-hot rows): a scalar, or one loss per example.
        logits: Of the vectors: one per Bernoulli choice, or a row of them per categorical choice. ``None``: no choices.
        returns: How ``training_step`` returns the loss: as ``"loss"``, ``"losses"`` or ``"reward"``.
        config: Of the problem.
    """

    value: Tensor
    loss: Callable[[Values, Tensor], Tensor]
    logits: Field | None = None
    returns: str = "loss"
    config: Mapping[str, Any] = field(default_factory=dict)

    def outcomes(self, values: Values) -> Tensor:
        """Every outcome, one after another."""
        if self.logits is None:
            return torch.zeros(1, 0)
        logits = self.logits(values)
        if logits.dim() == 1:
            return torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(logits))))
        return torch.stack([one_hot(torch.tensor(rows), logits.shape[1]).to(logits) for rows in _rows(*logits.shape)])

    def probability(self, values: Values, outcome: Tensor) -> Tensor:
        """Of an outcome, by arithmetic of its own."""
        if self.logits is None:
            return torch.ones(())
        logits = self.logits(values)
        if logits.dim() == 1:
            return (outcome * logsigmoid(logits) + (1 - outcome) * logsigmoid(-logits)).sum().exp()
        return (outcome * (logits - logits.logsumexp(1, keepdim=True))).sum().exp()

    def expected(self, values: Values) -> Tensor:
        """The loss summed over all outcomes."""

        def term(outcome: Tensor) -> Tensor:
            return self.probability(values, outcome) * self.loss(values, outcome).mean()

        return torch.vmap(term)(self.outcomes(values)).sum()


class Sampling(Problem):
    """The problem of a :class:`Chance`; ``forced`` holds an outcome per draw, ``None`` lets chance decide."""

    def __init__(self, name: str, chance: Chance) -> None:
        module = Vector(chance.value)
        config = Config(**chance.config)
        super().__init__(name, module=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), config=config)
        self.chance = chance
        self.forced: tuple[Tensor, ...] | None = None
        self.draw = 0
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any) -> Any:
        values = {name: problem() for name, problem in self.reachable.items()}
        outcome = torch.zeros(0)
        if self.chance.logits is not None:
            logits = self.chance.logits(values)
            flat = logits.dim() == 1
            outcome = self.sample(Bernoulli(logits=logits) if flat else Categorical(logits=logits))
            self.seen.append(outcome)
            outcome = outcome if flat else one_hot(outcome, logits.shape[1]).to(logits)
        loss = self.chance.loss(values, outcome)
        if self.chance.returns == "reward":
            return {"reward": -loss.detach()}
        return {"losses": loss} if self.chance.returns == "losses" else loss.mean()

    def sample(self, distribution: Distribution, **given: Any) -> Tensor:
        if self.forced is not None:
            outcome = self.forced[self.draw]
            drawn = outcome if isinstance(distribution, Bernoulli) else outcome.argmax(1)
            distribution.sample = lambda shape=None: drawn  # type: ignore[method-assign, misc]
        return super().sample(distribution, **given)


def engine_of(chances: Mapping[str, Chance], edges: Edges, **config: Any) -> Engine:
    """The problems, in an engine; each knows which draw it is evaluated for."""
    engine = Engine([Sampling(n, c) for n, c in chances.items()], edges=edges, config=EngineConfig(**config))
    for problem in engine.problems.values():
        _follow_draws(problem)
    return engine


def oracle_of(chances: Mapping[str, Chance], edges: Edges) -> Hierarchy:
    """The hierarchy of the expected losses, without a library."""
    losses = {name: chance.expected for name, chance in chances.items()}
    return Hierarchy(losses, {n: c.value for n, c in chances.items()}, edges, edges)


def mean_hypergradient(engine: Engine, name: str) -> Tensor:
    """The hypergradient under every outcome of every draw of every problem, weighted by its probability."""
    problems: list[Any] = list(engine.problems.values())
    values = {p.name: p.module.value.detach() for p in problems}
    total, mass = torch.zeros_like(values[name]), 0.0
    for combination in itertools.product(*(_draws(problem, values) for problem in problems)):
        weight = 1.0
        for problem, outcomes in zip(problems, combination, strict=True):
            problem.forced = outcomes
            weight *= float(torch.stack([problem.chance.probability(values, o) for o in outcomes]).prod())
        total += weight * engine.hypergradient(name)[0]
        mass += weight
    assert abs(mass - 1) < 1e-12
    return total


def _rows(count: int, size: int) -> Iterator[tuple[int, ...]]:
    return itertools.product(range(size), repeat=count)


def _draws(problem: Any, values: Values) -> Iterator[tuple[Tensor, ...]]:
    number = problem.method.samples if isinstance(problem.method, Reinforce) else 1
    return itertools.product(problem.chance.outcomes(values), repeat=number)


def _follow_draws(problem: Any) -> None:
    evaluate = problem.level.evaluate

    def followed(values: Any, moment: Any = None, *, draw: int | None = None) -> Any:
        before, problem.draw = problem.draw, draw or 0
        try:
            return evaluate(values, moment, draw=draw)
        finally:
            problem.draw = before

    problem.level.evaluate = followed
