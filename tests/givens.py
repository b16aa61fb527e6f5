"""Problems whose loss is given as a function, for tests of what happens around the loss."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multilevel import Config, Engine, EngineConfig, Problem

Loss = Callable[["Given", Any], Any]


class Vector(nn.Module):
    """A parameter that a call returns."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(values))

    def forward(self) -> Tensor:
        return self.value


class Given(Problem):
    """A problem with a loss that is given, SGD unless an optimizer is, and a record of what was called when."""

    def __init__(
        self, name: str, loss: Loss, module: nn.Module | None = None, *, lr: float = 0.1, **parts: Any
    ) -> None:
        parts["config"] = parts.get("config") or Config()
        super().__init__(name, module=Vector(1.0) if module is None else module, **parts)
        self.lr = lr
        self.loss = loss
        self.events: list[str] = []

    def training_step(self, batch: Any) -> Any:
        return self.loss(self, batch)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.module.parameters(), lr=self.lr)

    def epoch_callback(self) -> None:
        self.events.append("epoch")

    def on_inner_loop_start(self) -> None:
        self.events.append("start")


def square(problem: Given, batch: Any) -> Tensor:
    """Half the squared norm of a vector: a loss for tests that need any."""
    return problem.module().square().sum() / 2


def alone(problem: Problem, **config: Any) -> Engine:
    """An engine of one problem."""
    return Engine([problem], config=EngineConfig(**config))


def pair(
    lower: Loss,
    upper: Loss,
    *,
    method: Any = "identity",
    modules: Sequence[nn.Module | None] = (None, None),
    **parts: Any,
) -> Engine:
    """An engine of ``upper`` above ``lower``; parts of both problems by keyword, ``steps`` for the lower's."""
    steps, config = parts.pop("steps", 1), parts.pop("engine", EngineConfig())
    low = Given("lower", lower, modules[0], config=Config(type=method, unroll_steps=steps), **parts)
    return Engine([Given("upper", upper, modules[1], **parts), low], edges=[("upper", "lower")], config=config)


def chain(*names: str) -> list[tuple[str, str]]:
    """Pairs (upper, lower) of names listed from the top."""
    return list(itertools.pairwise(names))


def hierarchy(
    u2l: Mapping[str, Iterable[str]], l2u: Mapping[str, Iterable[str]] | None = None, **configs: Mapping[str, Any]
) -> Engine:
    """An engine of scalar problems that read all their neighbours; ``l2u`` mirrors ``u2l`` by default.

    Args:
        u2l: Lowers by upper.
        l2u: Uppers by lower.
        configs: Settings of single problems.
    """
    if l2u is None:
        l2u = {}
        for upper, lowers in u2l.items():
            for lower in lowers:
                l2u = {**l2u, lower: [*l2u.get(lower, ()), upper]}
    names = dict.fromkeys(
        [*u2l, *(v for lowers in u2l.values() for v in lowers), *l2u, *(u for us in l2u.values() for u in us)]
    )

    def loss(problem: Given, batch: Any) -> Tensor:
        around = sum(other() for other in (*problem.uppers, *problem.lowers))
        return (problem.module() - 0.1 * around - 1).square().sum() / 2

    problems = [Given(name, loss, config=Config(type="identity", **configs.get(name, {}))) for name in names]
    return Engine(problems, {"u2l": u2l, "l2u": l2u})


def flat_state(engine: Engine) -> dict[str, Tensor]:
    """Copies of every parameter and buffer."""
    return {f"{n}.{k}": t.clone() for n, p in engine.problems.items() for k, t in p.module.state_dict().items()}


def assert_same(got: Any, expected: Any) -> None:
    """Equal bit for bit, however nested."""
    if isinstance(expected, Tensor):
        assert isinstance(got, Tensor)
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, Mapping):
        assert list(got) == list(expected)
        for key in expected:
            assert_same(got[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
    else:
        assert got == expected


def bits(engine: Any) -> dict[str, Any]:
    """All of an engine's state that a resumed run must share with an uninterrupted one: not how long it took."""
    state = engine.state_dict()
    del state["times"]
    return state
