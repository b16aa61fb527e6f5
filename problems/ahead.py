"""A look at data that cannot be shown twice: it is drawn before its time, and kept until its time comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..hypergrad.replay import RandomState
from .packing import pack, unpack
from .to_device import to_device


class Ahead:
    """At most one batch that was looked at and not used yet."""

    def __init__(self) -> None:
        self._kept: tuple[Any, RandomState, RandomState] | None = None

    def __bool__(self) -> bool:
        return self._kept is not None

    def look(self, draw: Callable[[], Any], device: torch.device) -> Any:
        """What :meth:`take` will return. Leaves the random numbers where they were."""
        if self._kept is None:
            before = RandomState(device, host=True)
            try:
                batch = draw()
                self._kept = batch, before, RandomState(device, host=True)
            finally:
                before.restore()
        return self._kept[0]

    def take(self, draw: Callable[[], Any]) -> Any:
        """What was looked at, or else what ``draw`` gives.

        The random numbers that the look used up are used up now, unless others were drawn in the meantime.
        """
        if self._kept is None:
            return draw()
        (batch, before, after), self._kept = self._kept, None
        if before.is_current():
            after.restore()
        return batch

    def state_dict(self) -> dict[str, Any] | None:
        """What is kept, as data.

        Raises:
            PackingError: The batch cannot be written.
        """
        if self._kept is None:
            return None
        batch, before, after = self._kept
        return {"batch": pack(batch), "before": before.state_dict(), "after": after.state_dict()}

    def load_state_dict(self, state: dict[str, Any] | None, device: torch.device) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._kept = None
        if state is not None:
            before, after = (RandomState.from_state_dict(state[key], device) for key in ("before", "after"))
            self._kept = to_device(unpack(state["batch"]), device), before, after
