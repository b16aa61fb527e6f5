"""A problem's training data: any iterable of batches, without end, on the problem's device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..hypergrad.errors import ConfigError
from ..hypergrad.replay import RandomState
from .ahead import Ahead
from .source import Source
from .to_device import to_device


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
        if isinstance(loader, tuple) and not loader:
            raise ConfigError(f"problem '{owner}': train_data_loader is an empty tuple")
        self._several = isinstance(loader, tuple)
        first, *others = loader if self._several else (loader,)
        source = Source(owner, first, self._epoch_ended, optional=not self._several)
        self._sources = [source, *(Source(owner, other) for other in others)]
        self._on_epoch = on_epoch
        self.epoch = 0
        self.position = 0
        self._ahead = Ahead()

    def draw(self, device: torch.device) -> Any:
        """The next batch, moved to ``device`` whole."""
        parts = self._ahead.take(self._next_parts)
        self.position += 1
        return self._batch(parts, device)

    def peek(self, device: torch.device) -> Any:
        """The batch that :meth:`draw` will return, without moving on."""
        unstarted = not self._ahead and not any(source.started for source in self._sources)
        if unstarted and all(source.can_be_shown for source in self._sources):
            # Throw-away iterators under the same random numbers show the same batch.
            with _undrawn(self._sources, device):
                parts = [None if s.loader is None else next(iter(s.loader)) for s in self._sources]
        else:
            parts = self._ahead.look(self._next_parts, device)
        return self._batch(parts, device)

    def state_dict(self) -> dict[str, Any]:
        """The position in every loader, and a batch that was looked at ahead of its time.

        Raises:
            PackingError: That batch cannot be written.
        """
        sources = [source.state_dict() for source in self._sources]
        return {"epoch": self.epoch, "position": self.position, "sources": sources, "ahead": self._ahead.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go to the position that :meth:`state_dict` returned; random numbers stay as they are.

        Raises:
            ProblemError: The data ends before it.
        """
        random = RandomState(device, host=True)
        try:
            for source, kept in zip(self._sources, state["sources"], strict=True):
                source.load_state_dict(kept)
        finally:
            random.restore()
        self.epoch, self.position = state["epoch"], state["position"]
        self._ahead.load_state_dict(state["ahead"], device)

    def _batch(self, parts: list[Any], device: torch.device) -> Any:
        return to_device(tuple(parts) if self._several else parts[0], device)

    def _next_parts(self) -> list[Any]:
        return [source.next() for source in self._sources]

    def _epoch_ended(self) -> None:
        self.epoch += 1
        self.position = 0
        self._on_epoch()


@contextmanager
def _undrawn(sources: Iterable[Source], device: torch.device) -> Iterator[None]:
    """Put random numbers back, those of the loaders' own generators too."""
    state = RandomState(device, host=True)
    own = [(g, g.get_state()) for source in sources for g in source.generators()]
    try:
        yield
    finally:
        state.restore()
        for generator, before in own:
            generator.set_state(before)
