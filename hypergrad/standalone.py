"""Methods as plain functions of problems, without an engine step around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from .errors import ConfigError, second_derivatives
from .linearization import Linearization
from .method import Method
from .tensors import Tensors


class Level(Protocol):
    """What a method needs to know of a problem; :class:`multilevel.Problem` has it."""

    name: str

    @property
    def method(self) -> Method: ...

    def trainable_parameters(self) -> Sequence[Tensor]: ...

    def linearize(self, uppers: Sequence[Level]) -> Linearization: ...

    def accumulate_mean_gradient(self, gradients: Tensors) -> None: ...


def apply_method(
    method_class: type[Method], vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool
) -> Tensors | None:
    """(d theta_curr* / d theta_prev)^T vector by one method.

    Uses the options of ``curr``'s own method when it is of this class, the method's defaults otherwise.

    Args:
        method_class: The method.
        vector: One tensor per trainable parameter of ``curr``, of the same shapes, dtypes and devices.
        curr: The problem whose best response is differentiated, bound to its neighbours (by an engine, or by ``bind``).
        prev: The problem, or problems, with respect to which it is differentiated.
        sync: Average the result over processes and add it to the ``.grad`` of ``prev``'s parameters.

    Returns:
        One tensor per trainable parameter of ``prev``, those of several problems one after another; ``None`` with
        ``sync=True``.

    Raises:
        ConfigError: ``vector`` does not match the parameters of ``curr``, or a ``prev`` does not reach it.
        ProblemError: The method needs second derivatives of an operation that torch has none for.
    """
    uppers = list(prev) if isinstance(prev, Sequence) else [prev]
    cotangent = _checked(vector, curr)
    method = curr.method if isinstance(curr.method, method_class) else method_class()
    with second_derivatives(f"problem '{curr.name}': {method.name}"):
        gradients = method.pull_back(curr.linearize(uppers), cotangent)
    if not sync:
        return gradients
    start = 0
    for upper in uppers:
        stop = start + len(upper.trainable_parameters())
        upper.accumulate_mean_gradient(gradients[start:stop])
        start = stop
    return None


def _checked(vector: Sequence[Tensor], curr: Level) -> Tensors:
    expected = [tuple(p.shape) for p in curr.trainable_parameters()]
    got = [tuple(v.shape) for v in vector]
    if expected != got:
        raise ConfigError(
            f"problem '{curr.name}': vector must hold one tensor per trainable parameter, "
            f"of shapes {expected}; got {got}"
        )
    return tuple(v.detach() for v in vector)
