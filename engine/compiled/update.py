"""An optimizer's step as one compiled pass over parameters, gradients and state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import increment_version
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Adagrad, Adam, AdamW, RMSprop

from ...hypergrad.errors import CompileWarning, TracingError
from ...hypergrad.tensors import laid_out, subtract
from ...hypergrad.tracing import tracing
from ...hypergrad.updates import group_options, update_rule
from ...problems.optimizer_step import is_watched, tell_scheduler
from ...problems.problem import Problem
from .graphs import operations
from .lowering import Function, compiled
from .optimizers import rate, settings
from .reasons import reason_of
from .shown import show
from .trial import difference, digests
from .worth import Pace, too_late

WORTH_IT = (Adam, AdamW, RMSprop, Adagrad)
"""Those that go over the parameters many times. Gradient descent, which does so once, gains nothing."""


CHANGES = 4
"""So often its settings may change before they are taken to do so all the time. The learning rate is no part of it."""


class CompiledUpdate:
    """Steps a problem's optimizer.

    Args:
        problem: The problem.
        eager: Steps it otherwise: for the first time, where something watches it or some gradient is missing, and where
            a new program is tried.
        pace: How long that takes.
        took: Is told how many seconds of a step were spent on compiling.
    """

    def __init__(self, problem: Problem, eager: Callable[[], Any], pace: Pace, took: Callable[[float], None]) -> None:
        self._name = problem.name
        self._optimizer: Any = problem.optimizer
        self._parameters = problem.level.parameters
        self._eager = eager
        self._pace = pace
        self._took = took
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        same = {id(p) for p in held} == {id(p) for p in self._parameters}
        real = all(p.is_floating_point() for p in self._parameters)  # torch takes complex numbers for pairs
        self._fits = type(self._optimizer) in WORTH_IT and same and real
        self._function: Function | None = None
        self._trusted = False
        self._settings: Hashable = None
        self._programs = 0

    def __call__(self) -> None:
        """Take a step."""
        if not self._fits:
            self._eager()
            return
        if not self._is_ready():
            self._step_eagerly()
            return
        assert self._function is not None
        if not self._trusted:
            begun = perf_counter()
            eagerly = self._try(self._function)
            self._took(perf_counter() - begun - eagerly)
            return
        tell_scheduler(self._optimizer)
        with torch.no_grad():
            self._function(*self._inputs())
        increment_version(self._parameters)

    @property
    def is_compiled(self) -> bool:
        """Whether there is a program."""
        return self._function is not None

    def _is_ready(self) -> bool:
        """Whether the program is there and fits this step."""
        if is_watched(self._optimizer) or any([p.grad is None or p.grad.is_sparse for p in self._parameters]):
            return False
        if self._function is None or self._settings != settings(self._optimizer):
            begun = perf_counter()
            self._prepare()
            self._took(perf_counter() - begun)
        return self._function is not None

    def _step_eagerly(self) -> float:
        """Take a step eagerly, and say how many seconds it took."""
        begun = perf_counter()
        self._eager()
        seconds = perf_counter() - begun
        self._pace.took({"step": seconds})
        return seconds

    @torch.no_grad()
    def _try(self, function: Function) -> float:
        """Take a step eagerly, and look whether the program would have taken the same; how long the eager one took."""
        given, size = [t.clone() for t in self._inputs()], len(self._parameters)
        try:
            function(*given)
        except Exception as error:
            self._refuse(str(reason_of(error)))
            return self._step_eagerly()
        found = digests([*subtract(given[:size], self._parameters), *given[2 * size :]])
        before = given[:size]
        torch._foreach_copy_(before, self._parameters)
        del given
        seconds = self._step_eagerly()
        now = self._inputs()
        expected = digests([*subtract(self._parameters, before), *now[2 * size :]])
        precision = max(torch.finfo(t.dtype).eps for t in now if t.is_floating_point())
        # How far a parameter moves is known as well as it is itself.
        allowed = [precision * float(torch.linalg.vector_norm(p)) for p in before]
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            rounding = allowed[i] if i < size else 0.0
            if (differs := difference([one], [other], precision, rounding)) is not None:
                what = "parameters" if i < size else "state"
                self._refuse(f"its program moves the {what} elsewhere than the eager step ({differs})")
                return seconds
        self._trusted = True
        return seconds

    def _refuse(self, reason: str) -> None:
        self._fits, self._function = False, None
        message = f"the optimizer of '{self._name}' is not compiled and steps eagerly: {reason}"
        warnings.warn(message, CompileWarning, stacklevel=2)

    def _prepare(self) -> None:
        self._function, self._trusted = None, False
        if not self._pace.known or any(not self._optimizer.state.get(p) for p in self._parameters):
            return  # what it will keep is not there before its first step
        if self._is_too_late():
            return
        self._settings = settings(self._optimizer)
        self._programs += 1
        try:
            if self._programs > CHANGES:
                raise TracingError("settings that are part of the program change all the time (betas, weight decay)")
            self._function = self._compiled()
        except Exception as error:
            self._refuse(str(reason_of(error)))

    def _inputs(self) -> list[Tensor]:
        gradients = [laid_out(p.grad, p) for p in self._parameters if p.grad is not None]
        state = [v for p in self._parameters for v in self._optimizer.state[p].values() if isinstance(v, Tensor)]
        return [*self._parameters, *gradients, *state, *(rate(group) for group in self._optimizer.param_groups)]

    def _is_too_late(self, operations: int = 0) -> bool:
        """Leave it eager where compiling cannot pay any more; without a word, as its level says so of it all."""
        self._fits = too_late(self._pace.left("step"), operations) is None
        return not self._fits

    def _compiled(self) -> Function | None:
        rule, options = update_rule(self._optimizer, self._parameters), group_options(self._optimizer)
        states, size = [self._optimizer.state[p] for p in self._parameters], len(self._parameters)

        def step(*given: Tensor) -> list[Tensor]:
            rest = iter(given[2 * size :])
            own = [{k: next(rest) if isinstance(v, Tensor) else v for k, v in state.items()} for state in states]
            groups = [{**group, "lr": next(rest)} for group in options]
            with tracing():
                new, news = rule(given[:size], given[size : 2 * size], own, groups)
            for before, after in zip(given, new, strict=False):
                before.copy_(after)
            for kept, changed in zip(own, news, strict=True):
                for key, value in kept.items():
                    if isinstance(value, Tensor) and changed[key] is not value:
                        value.copy_(changed[key])
            return []

        mode = FakeTensorMode()
        examples = [mode.from_tensor(t.detach()) for t in self._inputs()]
        with mode, torch.no_grad():
            graph = make_fx(step, tracing_mode="real")(*examples)
        if self._is_too_late(operations(graph)):
            return None
        with show(f"the optimizer of '{self._name}'", operations(graph)):
            return compiled(graph, examples)
