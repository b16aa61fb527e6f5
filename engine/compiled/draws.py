"""Random numbers of training steps: drawn outside of programs, in the order in which the eager step would draw them.

Every evaluation of a loss at one moment sees the same random numbers. So a program has them as inputs, once for each
training step that draws any, however often it evaluates that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ...hypergrad.errors import TracingError
from ...hypergrad.replay import RandomState
from ...problems.moment import Moment
from ...problems.problem import Problem
from .graphs import draws, is_drawn

FILLS = ("bernoulli_", "uniform_", "normal_", "exponential_", "random_", "log_normal_", "geometric_", "cauchy_")
"""In-place operations whose numbers do not depend on what they are written over."""
FACTORIES = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like")


@dataclass(frozen=True)
class Blank:
    """A tensor of which only its form matters."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Draw:
    """One operation that draws random numbers.

    Attributes:
        owner: The problem whose training step draws them.
        function: The operation.
        arguments: Its arguments, positional and by keyword, with blanks for tensors.
    """

    owner: str
    function: Any
    arguments: tuple[Any, ...]

    def draw(self) -> Tensor:
        """Draw them now."""
        positional, named = pytree.tree_map(lambda x: x.tensor() if isinstance(x, Blank) else x, self.arguments)
        drawn: Tensor = self.function(*positional, **named)
        return drawn


class Drawing(TorchDispatchMode):
    """Notes what the training steps draw while they are recorded, and lets one draw the same at each evaluation.

    Attributes:
        draws: What they draw, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self._drawn: dict[tuple[str, int], Tensor] = {}
        self._owner: str | None = None
        self._count = 0

    def begin(self, owner: str | None) -> None:
        """A training step of a problem is about to be evaluated; ``None``: it has been.

        Raises:
            TracingError: Another one is being evaluated.
        """
        if owner is not None and self._owner is not None:
            raise TracingError(f"training_step of '{self._owner}' calls that of '{owner}'")
        self._owner, self._count = owner, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not draws(func, args, kwargs):
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if self._owner is None:
            raise TracingError(f"random numbers are drawn outside of training steps ({name}), by a method for instance")
        depends = any(isinstance(given, Tensor) for given in args[1:]) or kwargs.get("generator") is not None
        if name not in FILLS + FACTORIES or depends:
            raise TracingError(f"its random numbers ({name}) depend on other tensors or on a generator of their own")
        key = self._owner, self._count
        self._count += 1
        if key not in self._drawn:
            self.draws.append(Draw(self._owner, func, pytree.tree_map(_blank, (tuple(args), kwargs))))
            # The first evaluation goes on like all others, so that a program can do several together.
            given = (_blank(args[0]).tensor(), *args[1:]) if name in FILLS else args
            self._drawn[key] = func(*given, **kwargs)
        return args[0].copy_(self._drawn[key]) if name in FILLS else self._drawn[key].clone()


class Dice:
    """Draws what a program needs.

    Args:
        draws: What it needs, in order.
        problem: The problem whose step it is; the others' training steps are only looked back at.
    """

    def __init__(self, draws: Sequence[Draw], problem: Problem) -> None:
        self._own = problem.name
        self._device = problem.level.device
        self._draws = draws

    def throw(self, moments: Mapping[str, Moment]) -> list[Tensor]:
        """Draw: for its own step the numbers that come next, for others those that they had at their moments."""
        if not self._draws:
            return []
        owners = dict.fromkeys(draw.owner for draw in self._draws)
        drawn = {owner: self._thrown_by(owner, moments[owner]) for owner in owners}
        return [drawn[draw.owner].pop(0) for draw in self._draws]

    def _thrown_by(self, owner: str, moment: Moment) -> list[Tensor]:
        draws = [draw for draw in self._draws if draw.owner == owner]
        if owner == self._own:
            return [draw.draw() for draw in draws]
        now = RandomState(self._device, host=False)
        moment.random.restore()
        try:
            return [draw.draw() for draw in draws]
        finally:
            now.restore()


def lift_draws(graph: fx.GraphModule) -> list[Tensor]:
    """Turn the operations that draw random numbers into inputs, in order; gives examples of them."""
    examples: list[Tensor] = []
    for node in list(graph.graph.nodes):
        if not is_drawn(node):
            continue
        last = graph.graph.find_nodes(op="placeholder")[-1]
        with graph.graph.inserting_after(last):
            drawn = graph.graph.placeholder(f"drawn_{len(examples)}")
            drawn.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(drawn)
        graph.graph.erase_node(node)
        examples.append(node.meta["val"])
    graph.recompile()
    return examples


def _blank(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return Blank(tuple(argument.shape), argument.stride(), argument.dtype, argument.device)
