"""The single values that environments are made of, as data: arrays, generators of random numbers, dates, choices."""

from __future__ import annotations

import copyreg
import dataclasses
import datetime
import enum
import functools
import inspect
import logging
import pathlib
import random
import re
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from ..hypergrad.errors import CheckpointError
from ..problems.packing import imported_class

CONSTANT = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, functools.partial,
    weakref.ref, re.Pattern, pathlib.PurePath, logging.Logger,
)  # fmt: skip
"""What is built and not changed: an object that was built in the same way has it already."""
CONSTANT_NAMES = {"EnvSpec", "WrapperSpec", "ufunc"}
MADE = (
    range, slice, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone, Decimal,
    Fraction, torch.Size,
)  # fmt: skip
"""Unchanging values that are made anew from their arguments."""
WRITABLE_ARRAYS = "biufcSUmM"
OF_A_PROCESS = {"asyncio", "concurrent", "ctypes", "multiprocessing", "queue", "socket", "subprocess", "threading"}
"""Modules whose objects mean nothing in another process, though some have no more than attributes."""
SPACES = ("action_space", "observation_space", "single_action_space", "single_observation_space")
OWN = (("state_dict", "load_state_dict"), ("get_extra_state", "set_extra_state"))
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class Unwritable(Exception):  # noqa: N818  nothing is wrong; the caller looks for another way
    """A value is no data.

    Args:
        path: Where it is.
        value: The value.
    """

    def __init__(self, path: str, value: Any) -> None:
        super().__init__(path)
        self.path, self.kind = path, type(value).__name__


def is_constant(value: Any) -> bool:
    """Whether it belongs to how an object is built, or to how it is drawn."""
    return isinstance(value, CONSTANT) or _package(value) == "pygame" or type(value).__name__ in CONSTANT_NAMES


def write_value(value: Any, write: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    """A single value as data; ``None`` if it is not one.

    Args:
        value: The value.
        write: Writes what it is made of.
    """
    if isinstance(value, Tensor):
        return "tensor", value.detach().clone()
    if isinstance(value, enum.Enum):
        return "enum", class_name(type(value)), value.name
    if type(value) in MADE:
        made, arguments = value.__reduce_ex__(2)[:2]
        return "made", made.__qualname__, [write(argument) for argument in arguments]
    numpy = sys.modules.get("numpy")
    if numpy is not None and (type(value) is numpy.ndarray or isinstance(value, numpy.generic)):
        return _array(value)
    return None


def read_value(kind: str, parts: Sequence[Any], read: Callable[[Any], Any]) -> Any:
    """What :func:`write_value` was given."""
    if kind == "tensor":
        return parts[0].clone()
    if kind == "enum":
        return getattr(known_class(parts[0]), parts[1])
    if kind == "made":
        return {cls.__qualname__: cls for cls in MADE}[parts[0]](*(read(argument) for argument in parts[1]))
    import numpy as np

    if kind == "scalar":
        return np.frombuffer(parts[1], parts[0])[0]
    dtype, shape, order, content = parts
    return np.frombuffer(content.numpy().tobytes(), dtype).reshape(shape, order=order).copy(order="K")


def _array(value: Any) -> tuple[Any, ...] | None:
    """An array, or one number of numpy's, bit for bit; ``None`` where it holds objects."""
    import numpy as np

    if value.dtype.kind not in WRITABLE_ARRAYS:
        return None
    if isinstance(value, np.generic):
        return "scalar", value.dtype.str, value.tobytes()
    # The order of the axes in memory decides in which order a sum is rounded.
    order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    content = torch.frombuffer(bytearray(value.tobytes(order)), dtype=torch.uint8) if value.nbytes else torch.empty(0)
    return "array", value.dtype.str, tuple(value.shape), order, content


def generator_state(value: Any) -> tuple[str, Any] | None:
    """What kind of generator of random numbers it is, and its state; ``None`` if it is none."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, torch.Generator):
        return "torch", value.get_state()
    if type(value) is random.Random:
        return "python", value.getstate()
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return "numpy", value.bit_generator.state
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return "numpy legacy", value.get_state(legacy=False)
    return None


def restored_generator(kind: str, state: Any, current: Any) -> Any:
    """The generator that is there, or a new one, in a given state."""
    if kind == "torch":
        generator = current if isinstance(current, torch.Generator) else torch.Generator()
        generator.set_state(state)
        return generator
    if kind == "python":
        own = current if type(current) is random.Random else random.Random()
        own.setstate(state)
        return own
    import numpy as np

    if kind == "numpy legacy":
        legacy = current if isinstance(current, np.random.RandomState) else np.random.RandomState()
        legacy.set_state(state)
        return legacy
    name = state["bit_generator"]
    if not isinstance(current, np.random.Generator) or type(current.bit_generator).__name__ != name:
        if name not in BIT_GENERATORS:
            raise CheckpointError(f"the environment's checkpoint has random numbers of a {name}, which is not known")
        current = np.random.Generator(getattr(np.random, name)())
    current.bit_generator.state = state
    return current


def is_its_attributes(value: Any) -> bool:
    """Whether pickle, too, would keep nothing of an object but its class and its attributes."""
    if _package(value) in OF_A_PROCESS:
        return False
    try:
        made, arguments, state, *items = (*value.__reduce_ex__(2), None)[:5]
    except Exception:  # it cannot be pickled: there is more to it
        return False
    plain = made is copyreg.__newobj__ and arguments == (type(value),)  # type: ignore[attr-defined]
    return plain and not any(items) and _names(value, state) == attributes(value).keys()


def _names(value: Any, state: Any) -> set[str] | None:
    """The attributes in what pickle would keep; ``None`` where that is something else."""
    if isinstance(state, list) and dataclasses.is_dataclass(value):  # a frozen one with slots
        return {field.name for field in dataclasses.fields(value)}
    parts = state if isinstance(state, tuple) else (state,)
    if not all(part is None or isinstance(part, dict) for part in parts):
        return None
    return {name for part in parts for name in part or ()}


def attributes(value: Any) -> dict[str, Any]:
    """An object's attributes by name, those in slots too, and the spaces that its class has for all environments."""
    cls = type(value)
    shared = {name: getattr(value, name) for name in SPACES if is_space(inspect.getattr_static(cls, name, None))}
    names = [name for base in cls.__mro__ for name in _slots(base) if hasattr(value, name)]
    return {**shared, **{name: getattr(value, name) for name in names}, **getattr(value, "__dict__", {})}


def set_attribute(value: Any, name: str, part: Any) -> None:
    """Put an attribute where it is kept, past whatever the class does when one is set."""
    if name in getattr(value, "__dict__", {}) or not any(name in _slots(cls) for cls in type(value).__mro__):
        value.__dict__[name] = part
    else:
        object.__setattr__(value, name, part)


def class_name(cls: type) -> str:
    """What :func:`known_class` finds it by."""
    return sys.intern(f"{getattr(cls, '__module__', None)}:{cls.__qualname__}")  # pickle writes one text once


def known_class(name: str) -> Any:
    """A class that this process has imported already.

    Raises:
        CheckpointError: There is none of that name.
    """
    found = imported_class(name)
    if found is None:
        raise CheckpointError(f"the environment's checkpoint has a {name}, which is not known here")
    return found


def own_state(value: Any) -> Any:
    """What asks an object for its state, and what gives it back."""
    for names in OWN:
        if all(callable(getattr(type(value), name, None)) for name in names):
            return tuple(getattr(value, name) for name in names)
    return None


def gymnasium() -> Any:
    return sys.modules.get("gymnasium")  # an object of gymnasium's cannot be there unless it was imported


def is_environment(value: Any) -> bool:
    kinds = (gymnasium().Env, gymnasium().vector.VectorEnv) if gymnasium() is not None else ()
    return isinstance(value, kinds)


def is_space(value: Any) -> bool:
    return gymnasium() is not None and isinstance(value, gymnasium().Space)


def holds_state(part: Any) -> bool:
    """Whether an attribute is an environment, a space or a generator, or a container of such."""
    parts = list(part.values()) if isinstance(part, dict) else part if type(part) in (list, tuple) else [part]
    return bool(parts) and all(is_environment(p) or is_space(p) or generator_state(p) is not None for p in parts)


def _package(value: Any) -> str:
    module = getattr(type(value), "__module__", "")  # classes made by SWIG may have none
    return str(module).partition(".")[0]


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))
