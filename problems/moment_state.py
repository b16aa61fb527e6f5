"""Moments as data for checkpoints, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..hypergrad.precision import like
from ..hypergrad.replay import RandomState
from .moment import Moment
from .packing import pack, unpack
from .to_device import to_device

if TYPE_CHECKING:
    from .level import ProblemLevel


def moment_state(moment: Moment | None) -> dict[str, Any] | None:
    """A moment as data.

    Raises:
        PackingError: Its batch cannot be written.
    """
    if moment is None:
        return None
    return {
        "batch": pack(moment.batch),
        "random": moment.random.state_dict(),
        "values": dict(moment.values),
        "members": {name: moment_state(member) for name, member in moment.members.items()},
        "loop": moment.loop.state_dict() if moment.loop is not None else None,
        "counted": moment.counted,
        "buffers": list(moment.buffers),
    }


def moment_from_state(state: dict[str, Any], level: ProblemLevel) -> Moment:
    """What :func:`moment_state` was given.

    Args:
        state: The data.
        level: The level whose moment it is, in an engine.

    Raises:
        PackingError: Its batch cannot be rebuilt.
    """
    device = level.parameters[0].device
    values = {name: like(kept, level.other(name).parameters) for name, kept in state["values"].items()}
    members = {name: moment_from_state(kept, level.other(name)) for name, kept in state["members"].items()}
    loop = level.loop_from_state(state["loop"]) if state["loop"] is not None else None
    random = RandomState.from_state_dict(state["random"], device)
    batch = to_device(unpack(state["batch"]), device)
    writes = level.training_step.writes_in(batch)
    buffers = [None if buffer is None else buffer.to(device) for buffer in state["buffers"]]
    return Moment(batch, random, values, members, loop, state["counted"], writes, buffers)
