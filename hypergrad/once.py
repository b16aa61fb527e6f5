"""Attributes that are computed once, when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from typing_extensions import Self

V = TypeVar("V")


class once(Generic[V]):  # noqa: N801  used like a decorator of the standard library
    """As :class:`functools.cached_property`, without a lock.

    Up to Python 3.11 that has one lock for all instances, and holds it while it computes. Gradients on a GPU are
    computed by a thread of autograd's, and that of one instance asks for that of another where levels are nested: with
    such a lock, both threads would wait for ever.

    Args:
        compute: The method that computes it.
    """

    def __init__(self, compute: Callable[[Any], V]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> V: ...

    def __get__(self, instance: object | None, owner: type) -> Self | V:
        if instance is None:
            return self
        value = vars(instance)[self._name] = self._compute(instance)  # is found before this descriptor from now on
        return value
