"""One data loader, iterated without end, whose position inside an epoch can be written down and found again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..hypergrad.errors import ConfigError, ProblemError
from ..hypergrad.replay import RandomState

HOST = torch.device("cpu")


class Source:
    """Draws batches from one loader, starting over when it is exhausted.

    Its position is that of the loader's own ``state_dict`` where it has one (torchdata's ``StatefulDataLoader``).
    Otherwise it is the random numbers with which the epoch began and how many batches were taken since; it is found
    again by starting the epoch from these and passing over so many batches.

    Args:
        owner: The problem's name, for error messages.
        loader: Any iterable of batches.
        on_end: Called whenever the loader is exhausted, before it starts over.
        optional: Whether the loader may be ``None``, which gives ``None`` for ever.

    Attributes:
        loader: The loader.
        taken: Batches drawn since the current epoch began.

    Raises:
        ConfigError: The loader is empty or cannot be iterated.
    """

    def __init__(
        self, owner: str, loader: Any, on_end: Callable[[], None] = lambda: None, *, optional: bool = False
    ) -> None:
        self.loader = loader
        self.taken = 0
        self._owner = owner
        self._on_end = on_end
        self._iterator: Iterator[Any] | None = None
        self._held: weakref.finalize[Any, Any] | None = None
        self._began: dict[str, Any] | None = None
        if loader is None and optional:
            return
        if not isinstance(loader, Iterable):
            raise ConfigError(
                f"problem '{owner}': train_data_loader must be an iterable of batches (a DataLoader, a list), or a "
                f"tuple of several, got {type(loader).__name__}"
            )
        if _is_empty(loader):
            raise ConfigError(f"problem '{owner}': train_data_loader is empty")

    @property
    def started(self) -> bool:
        """Whether anything was drawn."""
        return self._iterator is not None

    @property
    def can_be_shown(self) -> bool:
        """Whether a second iterator gives the same batches under the same random numbers."""
        if isinstance(self.loader, DataLoader):
            return not isinstance(self.loader.dataset, IterableDataset) and not self.loader.persistent_workers
        return self.loader is None or isinstance(self.loader, Sequence)

    def next(self) -> Any:
        """The next batch."""
        if self.loader is None:
            return None
        iterator = self._iterator if self._iterator is not None else self._begin()
        try:
            batch = next(iterator)
        except StopIteration:
            batch = self._start_over()
        self.taken += 1
        return batch

    def generators(self) -> Iterator[torch.Generator]:
        """The generators of its own that a DataLoader (or its samplers) draws from."""
        found = (getattr(part, "generator", None) for part in (self.loader, *self._samplers()))
        yield from {id(g): g for g in found if isinstance(g, torch.Generator)}.values()

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        state = {"taken": self.taken, "started": self.started, "began": self._began, **self._own_state()}
        if self.started and _has_state(self.loader):  # torchdata's would begin its epoch now
            state["loader"] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Find the position that :meth:`state_dict` returned. Moves random numbers; the caller puts them back.

        Raises:
            ProblemError: The data ends before it.
        """
        at_start, before = self._iterator is None, self.taken
        self.taken, self._began = state["taken"], state["began"]
        self._hold(None)
        for sampler, epoch in zip(self._samplers(), state["epochs"], strict=False):
            if epoch is not None:
                sampler.set_epoch(epoch)
        if "loader" in state and _has_state(self.loader):
            self.loader.load_state_dict(state["loader"])
            self._hold(iter(self.loader))
        elif state["started"]:
            one_shot = isinstance(self.loader, Iterator)
            self._find(0 if at_start or not one_shot else before)
        for generator, own in zip(self.generators(), state["generators"], strict=False):
            generator.set_state(own)

    def _samplers(self) -> list[Any]:
        found: dict[int, Any] = {}
        front = [getattr(self.loader, name, None) for name in ("sampler", "batch_sampler")]
        while front:  # samplers draw from samplers
            sampler = front.pop(0)
            if sampler is not None and id(sampler) not in found:
                found[id(sampler)] = sampler
                front.append(getattr(sampler, "sampler", None))
        return list(found.values())

    def _own_state(self) -> dict[str, Any]:
        # A DistributedSampler shuffles by an epoch that users set, often in epoch_callback().
        epochs = [getattr(s, "epoch", None) if hasattr(s, "set_epoch") else None for s in self._samplers()]
        return {"generators": [g.get_state() for g in self.generators()], "epochs": epochs}

    def _begin(self) -> Iterator[Any]:
        self.taken = 0
        if not isinstance(self.loader, Sequence) and not _has_state(self.loader):  # those draw no random numbers
            random = RandomState(HOST, host=True).state_dict()
            self._began = {"random": random, "workers": self._has_workers, **self._own_state()}
        iterator = iter(self.loader)
        self._hold(iterator)
        return iterator

    def _hold(self, iterator: Iterator[Any] | None) -> None:
        """Take an iterator in place of the one before.

        One with workers is held from elsewhere too. It tells them to end through queues, which the garbage collector
        would take apart first where it comes upon everything at once; then it waits 5 s for each of them.
        """
        if self._held is not None:
            self._held.detach()
        self._iterator, self._held = iterator, None
        if iterator is not None and getattr(self.loader, "num_workers", False):
            self._held = weakref.finalize(self, _let_go, iterator)

    def _start_over(self) -> Any:
        self._on_end()
        try:
            return next(self._begin())
        except StopIteration:
            raise ProblemError(
                f"problem '{self._owner}': its data ended and cannot start over: iterating it again gives no batch. "
                "Pass something that can be iterated more than once (a list, a DataLoader), not a generator"
            ) from None

    @property
    def _has_workers(self) -> bool:
        """Whether a DataLoader has persistent workers at work: making them draws random numbers, once."""
        return getattr(self.loader, "_iterator", None) is not None

    def _find(self, before: int) -> None:
        if self._began is not None:
            if isinstance(self.loader, DataLoader) and self.loader.persistent_workers:
                self.loader._iterator = None
                if self._began["workers"]:
                    iter(self.loader)
            RandomState.from_state_dict(self._began["random"], HOST).restore()
            for generator, own in zip(self.generators(), self._began["generators"], strict=False):
                generator.set_state(own)
        iterator = iter(self.loader)
        self._hold(iterator)
        if _pass_over(iterator, self.loader, self.taken - before) < self.taken - before:
            raise ProblemError(
                f"problem '{self._owner}': its data has fewer than the {self.taken} batches of the epoch that the "
                "checkpoint was written in; is it other data than then?"
            )


def _let_go(iterator: Iterator[Any]) -> None:
    """Nothing: it is held no longer."""


def _is_empty(loader: Any) -> bool:
    try:
        return len(loader) == 0
    except TypeError:  # a DataLoader over an iterable dataset has a __len__ that raises
        return False


def _has_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _pass_over(iterator: Iterator[Any], loader: Any, count: int) -> int:
    """Leave out so many batches, and return how many there were."""
    next_index = getattr(iterator, "_next_index", None)
    one_by_one = isinstance(loader, DataLoader) and loader.num_workers == 0
    if one_by_one and next_index is not None and not isinstance(loader.dataset, IterableDataset):
        # Nothing but the sampler decides what comes next, so the samples themselves need not be read.
        return sum(1 for _ in islice(_until_stop(next_index), count))
    return sum(1 for _ in islice(iterator, count))


def _until_stop(draw: Any) -> Iterator[Any]:
    try:
        while True:
            yield draw()
    except StopIteration:
        return
