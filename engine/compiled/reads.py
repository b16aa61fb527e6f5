"""What training steps read: their tensors, and everything in Python that a program made of them relies on.

``torch.compile`` follows the Python code once and guards what it saw: numbers, modes of modules, shapes, which tensors
are one. Here it is used for that alone. What it would compile is thrown away, and calling it tells which of the ways
through the code, met so far, the steps take now, and hands over the tensors that they read on that way.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias

import torch
import torch._dynamo
from torch import Tensor

from ...hypergrad.errors import TracingError
from ...problems.problem import Problem
from .reasons import chain, reason_of

try:
    from torch._C._dynamo.eval_frame import set_eval_frame
except ImportError:  # private to torch: where it is gone, the public way does the same
    set_eval_frame = None  # type: ignore[assignment]

WAYS = 6
"""Different ways through training steps that are followed before they are taken to change all the time; torch itself
ends at eight."""

STATIC = {
    "automatic_dynamic_shapes": False,
    "assume_static_by_default": True,
    "specialize_float": True,
    "trace_autograd_ops": True,  # a training step may take derivatives of its own; only later torch follows these
    "skip_nnmodule_hook_guards": False,  # a hook may be registered between two steps
}
STATIC = {key: value for key, value in STATIC.items() if hasattr(torch._dynamo.config, key)}
"""How a new way is followed: a number or a size that was another before is not left open."""


class Reading(NamedTuple):
    """One look at training steps.

    Attributes:
        way: The number of the way that they take.
        tensors: What they read: parameters, buffers, the batches' tensors and any others.
    """

    way: int
    tensors: tuple[Tensor, ...]


Source: TypeAlias = Callable[[Reading], Tensor]
"""Finds a tensor again, given what training steps read this time."""


class Reads:
    """Looks at the training steps of some problems together.

    Args:
        problems: The problems.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = list(problems)
        self._ways = 0
        self._static = False
        self._reading: Reading | None = None
        # The code is a copy of its own: the ways through it are counted per code. So is where torch puts what it makes
        # of them, and it keeps whom it told of them for ever: neither may keep the problems.
        name = "_".join(("steps", *(problem.name for problem in problems)))
        self._function = FunctionType(_steps.__code__.replace(co_name=name), dict(globals()))
        self._context: Any = torch._dynamo.optimize(_telling(self), nopython=True, guard_filter_fn=_worth_a_look)
        self._follow = self._context(self._function)

    def look(self, batches: list[Any]) -> Reading:
        """What the training steps read now, on these batches; nothing is computed.

        Raises:
            TracingError: They cannot be followed.
        """
        self._reading = None
        try:
            self._follow_once(batches)
        except Exception as error:
            raise reason_of(error) from error
        if self._reading is None:
            raise TracingError("it computes nothing from tensors")
        return self._reading

    def _follow_once(self, batches: list[Any]) -> None:
        if self._ways:
            try:
                self._follow_known(batches)
                return
            except Exception as error:
                if not any(isinstance(cause, _NewWayError) for cause in chain(error)):
                    raise
        with warnings.catch_warnings(), torch._dynamo.config.patch(STATIC):
            warnings.simplefilter("ignore")  # what cannot be followed is said once, by the problem's name
            self._static = True
            try:
                self._follow(self._problems, batches)
            finally:
                self._static = False

    def _follow_known(self, batches: list[Any]) -> None:
        if set_eval_frame is None:
            self._follow(self._problems, batches)
            return
        # All that torch does around it is for code that compiles something, and takes as long as the guards.
        before = set_eval_frame(self._context.callback)
        try:
            self._function(self._problems, batches)
        finally:
            set_eval_frame(before)

    def take_note(self, graph: torch.fx.GraphModule) -> int:
        """The number of a way that was not met before.

        Raises:
            TracingError: It cannot be followed.
        """
        if not self._static:
            raise _NewWayError
        if any("Numpy" in type(source).__name__ for source in _sources(graph)):
            raise TracingError("training_step reads a numpy array or number, which may be another in the next step")
        changed = _changed(graph)
        if changed:
            raise TracingError(f"training_step changes {changed}, which a compiled step would not")
        if self._ways == WAYS:
            raise TracingError(
                f"training_step took a new way each of {WAYS} times: it depends on something that changes from "
                "step to step, such as self.count, a schedule of its own, or batches of many shapes"
            )
        self._ways += 1
        return self._ways - 1

    def takes(self, way: int, tensors: tuple[Tensor, ...]) -> None:
        """The steps take a way and read these tensors."""
        self._reading = Reading(way, tensors)


def _telling(reads: Reads) -> Callable[..., Any]:
    """Tells of new ways, and then of each time that they are taken, while there is somebody to tell."""
    told = weakref.ref(reads)

    def follow(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., tuple[()]]:
        reads = told()
        assert reads is not None
        way = reads.take_note(graph)

        def note(*tensors: Tensor) -> tuple[()]:
            reads = told()
            assert reads is not None
            reads.takes(way, tensors)
            return ()

        return note

    return follow


class _NewWayError(Exception):
    """A way that was not met before, to be followed with the settings for that, which take 5 us to make."""


def _worth_a_look(guards: Sequence[Any]) -> list[bool]:
    """Which guards are looked at each time: all but the one, of 8 us, for hooks that no program here calls."""
    return [guard.guard_type != "AUTOGRAD_SAVED_TENSORS_HOOKS" for guard in guards]


def _steps(problems: list[Problem], batches: list[Any]) -> None:
    for problem, batch in zip(problems, batches, strict=True):
        _use(problem.training_step(batch))


def _use(result: Any) -> None:
    """What a training step only hands on, such as a metric, is not followed; where something is done with it, it is."""
    if isinstance(result, Mapping):
        for value in result.values():
            if isinstance(value, Tensor):
                value.detach()
            elif value == 0:
                continue


def _sources(graph: torch.fx.GraphModule) -> list[Any]:
    """Where torch found what the steps read."""
    inputs = [node.meta.get("grapharg") for node in graph.graph.find_nodes(op="placeholder")]
    return [getattr(given, "source", None) for given in inputs]


def _changed(graph: torch.fx.GraphModule) -> str:
    """What the steps leave behind in Python objects, in words; empty where there is nothing."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    effects = InstructionTranslator.current_tx().output.side_effects
    if effects.is_empty():
        return ""
    names = set()
    for variable in effects._get_modified_vars():
        if (source := getattr(variable, "source", None)) is not None:
            attributes = effects.store_attr_mutations.get(variable, ())
            names |= {_in_words(source.name) + suffix for suffix in ([f".{a}" for a in attributes] or [""])}
    return " and ".join(sorted(names)) or "Python objects"


def _in_words(name: Any) -> str:
    """``L['problems'][0]`` is what the code calls ``self``."""
    path = re.sub(r"L\['problems'\]\[\d+\]", "self", name() if callable(name) else name)
    path = re.sub(r"\.__dict__\['_neighbours'\]\['(\w+)'\]", r".\1", path)
    return re.sub(r"^G\['?[^'\]]*'?\]\.?", "the global ", path) if path.startswith("G[") else path
