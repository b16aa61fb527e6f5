"""A problem's training data: any iterable of batches, without end, on the problem's device."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..hypergrad.errors import ConfigError, ProblemError
from ..hypergrad.replay import RandomState


class Batches:
    """Draws batches from one loader, or from several at once, starting over when a loader is exhausted.

    Args:
        owner: The problem's name, for error messages.
        loader: Any iterable of batches (a ``DataLoader``, a list of batches); a *tuple* of them is several loaders,
            whose batches come as a tuple. ``None``: the problem needs no data and its batch is ``None``.
        on_epoch: Called whenever the (first) loader is exhausted, before it starts over.

    Attributes:
        epoch: How often the first loader was exhausted.
        position: Batches drawn since the current epoch began.

    Raises:
        ConfigError: A loader is empty or cannot be iterated.
    """

    def __init__(self, owner: str, loader: Any, on_epoch: Callable[[], None]) -> None:
        self.loaders: tuple[Any, ...] = loader if isinstance(loader, tuple) else (loader,)
        self._several = isinstance(loader, tuple)
        self._owner = owner
        self._on_epoch = on_epoch
        self.epoch = 0
        self.position = 0
        self._iterators: list[Iterator[Any] | None] = [None] * len(self.loaders)
        self._ahead: list[list[Any]] = [[] for _ in self.loaders]
        if loader is not None:
            self._refuse_unusable()

    def draw(self, device: torch.device) -> Any:
        """The next batch, moved to ``device`` whole."""
        parts = [self._next(i) for i in range(len(self.loaders))]
        self.position += 1
        return to_device(tuple(parts) if self._several else parts[0], device)

    def peek(self, device: torch.device) -> Any:
        """The batch that :meth:`draw` will return, without moving on."""
        parts = [self._look(i) for i in range(len(self.loaders))]
        return to_device(tuple(parts) if self._several else parts[0], device)

    def _next(self, i: int) -> Any:
        loader = self.loaders[i]
        if loader is None:
            return None
        if self._ahead[i]:
            return self._ahead[i].pop()
        iterator = self._iterators[i]
        if iterator is None:
            iterator = self._iterators[i] = iter(loader)
        try:
            return next(iterator)
        except StopIteration:
            return self._start_over(i)

    def _start_over(self, i: int) -> Any:
        if i == 0:
            self.epoch += 1
            self.position = 0
            self._on_epoch()
        iterator = self._iterators[i] = iter(self.loaders[i])
        try:
            return next(iterator)
        except StopIteration:
            raise ProblemError(
                f"problem '{self._owner}': its data ended and cannot start over: iterating it again gives no batch. "
                "Pass something that can be iterated more than once (a list, a DataLoader), not a generator"
            ) from None

    def _look(self, i: int) -> Any:
        loader = self.loaders[i]
        if loader is None:
            return None
        if not self._ahead[i]:
            if self._iterators[i] is None and iter(loader) is not loader:
                # Not started: a throw-away iterator under the same random numbers shows the same batch.
                return _first_batch(loader)
            self._ahead[i].append(self._next(i))
        return self._ahead[i][-1]

    def _refuse_unusable(self) -> None:
        for loader in self.loaders:
            if not isinstance(loader, Iterable):
                raise ConfigError(
                    f"problem '{self._owner}': train_data_loader must be an iterable of batches (a DataLoader, a "
                    f"list), or a tuple of several, got {type(loader).__name__}"
                )
            length = getattr(loader, "__len__", None)
            if length is not None and length() == 0:
                raise ConfigError(f"problem '{self._owner}': train_data_loader is empty")


def _first_batch(loader: Any) -> Any:
    state = RandomState(torch.device("cuda" if torch.cuda.is_available() else "cpu"), host=True)
    generators = {id(g): g for g in _generators(loader)}.values()
    own = [(g, g.get_state()) for g in generators]
    try:
        return next(iter(loader))
    finally:
        state.restore()
        for generator, before in own:
            generator.set_state(before)


def _generators(loader: Any) -> Iterator[torch.Generator]:
    """The generators of its own that a DataLoader (or its samplers) draws from."""
    for part in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            yield generator
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if isinstance(getattr(inner, "generator", None), torch.Generator):
        yield inner.generator  # type: ignore[union-attr]


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a batch, however nested, and keep the containers' types.

    Tensors, tuples, named tuples, lists, mappings (``UserDict`` too, hence Hugging Face encodings) and anything else
    with a ``to`` method are moved; other values are returned as they are.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, (str, bytes)) or batch is None:
        return batch
    if isinstance(batch, tuple):
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, list):
        return [to_device(part, device) for part in batch]
    if isinstance(batch, UserDict):
        moved = copy.copy(batch)
        moved.data = {key: to_device(value, device) for key, value in batch.data.items()}
        return moved
    if isinstance(batch, Mapping):
        items = {key: to_device(value, device) for key, value in batch.items()}
        return items if type(batch) is dict else _same_mapping(batch, items)
    to = getattr(batch, "to", None)
    return to(device) if callable(to) else batch


def _same_mapping(batch: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    moved = copy.copy(batch)
    try:
        for key, value in items.items():
            moved[key] = value  # type: ignore[index]
    except TypeError:
        return items
    return moved
