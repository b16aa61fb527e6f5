"""Parameters that a training step reads past their module, where nothing can stand in for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from ..hypergrad.errors import ProblemError
from ..hypergrad.leaves import leaves_behind
from ..hypergrad.tensors import Tensors
from ..hypergrad.tracing import is_tracing

if TYPE_CHECKING:
    from .level import ProblemLevel


class Captured:
    """Looks at the first loss of a problem that is evaluated with other tensors in place of given levels' parameters.

    Args:
        name: The problem.
        levels: The levels that can be reached from it, by name.
    """

    def __init__(self, name: str, levels: Mapping[str, ProblemLevel]) -> None:
        self._name = name
        self._levels = levels
        self._seen: set[tuple[str, ...]] = set()

    def look(self, loss: Tensor, values: Mapping[str, Tensors]) -> None:
        """Refuse a loss that depends on parameters besides what stands in for them.

        Raises:
            ProblemError: It does: a derivative would take that part of it for a constant.
        """
        names = tuple(values)
        if names in self._seen or loss.grad_fn is None or is_tracing():
            return
        leaves = leaves_behind(loss, [tensor for tensors in values.values() for tensor in tensors])
        for name, tensors in values.items():
            level = self._levels.get(name)
            for parameter, tensor in zip(level.parameters if level is not None else (), tensors, strict=False):
                if tensor is not parameter and leaves.include([parameter]):
                    raise self._error(name, parameter)
        self._seen.add(names)

    def _error(self, name: str, parameter: Tensor) -> ProblemError:
        return ProblemError(
            f"problem '{self._name}': training_step reads a parameter of '{name}' of shape {tuple(parameter.shape)} "
            "by a reference of its own. A derivative puts other tensors in place of parameters, and would take this "
            "one for a constant; read it through that problem's module, or its .parameters, in each step, or detach it "
            "if it is meant to be one"
        )
