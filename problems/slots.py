"""Where a module keeps its parameters and buffers, so that other tensors can stand in for them.

The swap reaches everything that reads the module (``module(x)``, ``module.weight`` in a regularizer, tied weights),
costs a dictionary write per tensor, and never touches the values: restoring is exact in any dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..hypergrad.errors import ConfigError
from ..hypergrad.tensors import Tensors


class Slots:
    """The places that hold a module's trainable parameters.

    Args:
        owner: The problem's name, for the error message.
        module: The module.
        parameters: The parameters to find, each of which may be in several places (tied weights).

    Attributes:
        tensors: What is in these places now, in the order of the parameters.

    Raises:
        ConfigError: A parameter is in none of the module's places.
    """

    def __init__(self, owner: str, module: nn.Module, parameters: Tensors) -> None:
        self.tensors = self._own = parameters
        index = {id(p): i for i, p in enumerate(parameters)}
        self._places: list[tuple[dict[str, Any], str, int]] = [
            (part._parameters, key, index[id(p)])
            for part in module.modules()
            for key, p in part._parameters.items()
            if id(p) in index
        ]
        missing = set(range(len(parameters))) - {i for _, _, i in self._places}
        if missing:
            raise ConfigError(
                f"problem '{owner}': trainable_parameters() returns a tensor of shape "
                f"{tuple(parameters[min(missing)].shape)} that is not a parameter of its module"
            )

    def put(self, tensors: Tensors) -> None:
        """Make ``tensors`` the module's parameters, in the order in which those were given."""
        self.tensors = tensors
        for own, tensor in zip(self._own, tensors, strict=True):
            if marks := own.__dict__:  # such as ``bias.no_decay = True``; a subclass may have its values there
                tensor.__dict__.update({mark: value for mark, value in marks.items() if mark not in tensor.__dict__})
        for place, key, i in self._places:
            place[key] = tensors[i]


class Buffers:
    """The places that hold the buffers of several modules: running statistics, counters."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._places: list[tuple[dict[str, Any], str]] = [
            (part._buffers, key) for module in modules for part in module.modules() for key in part._buffers
        ]

    def copies(self) -> list[Tensor | None]:
        """What is in these places now."""
        if not self._places:
            return []
        with torch.no_grad():
            return [None if place[key] is None else place[key].clone() for place, key in self._places]

    def detach(self, values: Sequence[Tensor | None] = ()) -> list[Tensor | None]:
        """Put copies in place of the buffers, of other values where some are given, and return the originals."""
        if not self._places:
            return []
        originals = [place[key] for place, key in self._places]
        with torch.no_grad():
            for (place, key), value in zip(self._places, values or originals, strict=True):
                place[key] = None if value is None else value.clone()
        return originals

    def restore(self, originals: list[Tensor | None]) -> None:
        """Put the originals back."""
        for (place, key), original in zip(self._places, originals, strict=True):
            place[key] = original
