"""Two levels of which the lower is unrolled, and whether it went back through graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from multilevel import Config, Engine, EngineConfig, Problem, Unroll

from ..conftest import EXACT
from ..givens import assert_same, bits

STEPS = 4


class Lower(Problem):
    """A weighted regression; counts its evaluations."""

    evaluations = 0

    def training_step(self, batch: Any) -> Any:
        self.evaluations += 1
        return self.loss(batch)

    def loss(self, batch: Any) -> Any:
        x, y = batch
        return (self.upper.module(x).sigmoid() * (self.module(x) - y).square()).mean()


class Upper(Problem):
    """The same without weights."""

    def training_step(self, batch: Any) -> Tensor:
        x, y = batch
        return (self.lower.module(x) - y).square().mean()


def net(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *middle, nn.Linear(4, 1))


def batches(number: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 3, generator=generator), torch.randn(6, 1, generator=generator)) for _ in range(number)]


def engine_of(
    method: Unroll,
    lower: type[Lower] = Lower,
    *,
    module: Callable[[], nn.Module] = net,
    optimizer: type[Optimizer] = SGD,
    options: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    **config: Any,
) -> Engine:
    torch.manual_seed(3)
    below, above = module(), nn.Linear(3, 1)
    low = lower(
        "lower",
        module=below,
        optimizer=optimizer(below.parameters(), **{"lr": 0.1, **(options or {})}),
        train_data_loader=batches(7, 1),
        config=Config(type=method, **{"unroll_steps": STEPS, **config}),
    )
    up = Upper("upper", module=above, optimizer=SGD(above.parameters(), lr=1.0), train_data_loader=batches(5, 2))
    return Engine([up, low], edges=[(up, low)], config=EngineConfig(train_iters=10**6, **(engine or {})))


def advance(engine: Engine, steps: int) -> None:
    """So many engine steps."""
    for _ in range(steps):
        engine.step()


def trained(engine: Engine, steps: int) -> list[Tensor]:
    """Where the parameters were after each step, and the hypergradient of the upper."""
    torch.manual_seed(4)
    seen = []
    for _ in range(steps):
        engine.step()
        seen += [p.detach().clone() for problem in engine.problems.values() for p in problem.parameters]
        seen += engine.hypergradient("upper") if engine["lower"].level.loop.state_dict()["steps"] else ()
    return seen


def assert_alike(steps: int = 2 * STEPS + 2, *, method: dict[str, Any] | None = None, **parts: Any) -> Engine:
    """Graphs or not, a run goes the same way; asked for hypergradients in between, or not."""
    graphs = engine_of(Unroll(**(method or {})), **parts)
    again = engine_of(Unroll(**{**(method or {}), "checkpoints": "all"}), **parts)
    torch.testing.assert_close(trained(graphs, steps), trained(again, steps), rtol=EXACT, atol=EXACT)
    unasked = engine_of(Unroll(**(method or {})), **parts)
    torch.manual_seed(4)
    advance(unasked, steps)
    assert_same(bits(unasked), bits(graphs))
    return unasked


def uses_graphs(engine: Engine) -> bool:
    """Whether training alone evaluated the lower."""
    low = engine["lower"]
    return bool(low.evaluations == low.count)
