"""A problem's training data: any iterable of batches, without end, on the problem's device."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..hypergrad.errors import ConfigError, ProblemError
from ..hypergrad.replay import RandomState
from .ahead import Ahead


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
        self._ahead = Ahead()
        if loader is not None:
            self._refuse_unusable()

    def draw(self, device: torch.device) -> Any:
        """The next batch, moved to ``device`` whole."""
        parts = self._ahead.take(self._next_parts)
        self.position += 1
        return self._batch(parts, device)

    def peek(self, device: torch.device) -> Any:
        """The batch that :meth:`draw` will return, without moving on."""
        unstarted = not self._ahead and all(iterator is None for iterator in self._iterators)
        if unstarted and all(map(_can_be_shown, self.loaders)):
            # Throw-away iterators under the same random numbers show the same batch.
            with _undrawn(self.loaders, device):
                parts = [None if loader is None else next(iter(loader)) for loader in self.loaders]
        else:
            parts = self._ahead.look(self._next_parts, device)
        return self._batch(parts, device)

    def _batch(self, parts: list[Any], device: torch.device) -> Any:
        return to_device(tuple(parts) if self._several else parts[0], device)

    def _next_parts(self) -> list[Any]:
        return [self._next(i) for i in range(len(self.loaders))]

    def _next(self, i: int) -> Any:
        loader = self.loaders[i]
        if loader is None:
            return None
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

    def _refuse_unusable(self) -> None:
        if not self.loaders:
            raise ConfigError(f"problem '{self._owner}': train_data_loader is an empty tuple")
        for loader in self.loaders:
            if not isinstance(loader, Iterable):
                raise ConfigError(
                    f"problem '{self._owner}': train_data_loader must be an iterable of batches (a DataLoader, a "
                    f"list), or a tuple of several, got {type(loader).__name__}"
                )
            if _is_empty(loader):
                raise ConfigError(f"problem '{self._owner}': train_data_loader is empty")


def _is_empty(loader: Any) -> bool:
    try:
        return len(loader) == 0
    except TypeError:  # a DataLoader over an iterable dataset has a __len__ that raises
        return False


def _can_be_shown(loader: Any) -> bool:
    """Whether a second iterator gives the same batches under the same random numbers."""
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return loader is None or isinstance(loader, Sequence)


@contextmanager
def _undrawn(loaders: Iterable[Any], device: torch.device) -> Iterator[None]:
    """Put random numbers back, those of the loaders' own generators too."""
    state = RandomState(device, host=True)
    own = {id(g): (g, g.get_state()) for loader in loaders for g in _generators(loader)}
    try:
        yield
    finally:
        state.restore()
        for generator, before in own.values():
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
        # Only towards a device: a copy to the host that nobody waits for is read before it is there.
        return batch.to(device, non_blocking=device.type != "cpu")
    if isinstance(batch, (str, bytes)) or batch is None:
        return batch
    if isinstance(batch, tuple) and not hasattr(batch, "to"):  # a PackedSequence knows what must stay on the host
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, list):
        parts = [to_device(part, device) for part in batch]
        return parts if type(batch) is list else _same_list(batch, parts)
    if isinstance(batch, UserDict):
        moved = copy.copy(batch)
        moved.data = {key: to_device(value, device) for key, value in batch.data.items()}
        return moved
    if isinstance(batch, Mapping):
        items = {key: to_device(value, device) for key, value in batch.items()}
        return items if type(batch) is dict else _same_mapping(batch, items)
    to = getattr(batch, "to", None)
    return to(device) if callable(to) else batch


def _same_list(batch: list[Any], parts: list[Any]) -> list[Any]:
    moved = copy.copy(batch)
    moved[:] = parts
    return moved


def _same_mapping(batch: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        moved = copy.copy(batch)
        for key, value in items.items():
            moved[key] = value  # type: ignore[index]
    except TypeError:  # a read-only view, for example
        return items
    return moved
