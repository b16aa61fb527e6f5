"""What a problem's ``training_step`` evaluates to: for its own training, and anywhere else without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hypergrad.host_draws import host_mark
from ..hypergrad.objective import Evaluation
from ..hypergrad.tensors import Tensors
from ..hypergrad.tracing import is_tracing
from .captured import Captured
from .losses import read_loss
from .moment import Moment
from .replay import Substituted, Untraced
from .sampling import Choice, sampled_so_far, sampling
from .scoring import Scoring, reseed
from .slots import Buffers
from .writes import batch_error, batch_lost_error, parameters_error, written, written_in

if TYPE_CHECKING:
    from .level import ProblemLevel
    from .problem import Problem

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
NOTHING = nullcontext()


class TrainingStep:
    """Evaluates the ``training_step`` of one problem.

    Args:
        problem: The problem.
        level: Its working parts.

    Attributes:
        host_random: Whether it draws from numpy's or Python's generator; ``None`` before that is known.
        samples: Whether it was seen to draw choices.
    """

    def __init__(self, problem: Problem, level: ProblemLevel) -> None:
        self._problem = problem
        self._level = level
        self._scoring = Scoring(problem)
        self.host_random: bool | None = None
        self.samples = False

    def train(self, moment: Moment) -> tuple[Evaluation, dict[str, Tensor]]:
        """The loss and the metrics at the current parameters: buffers and random numbers move on."""
        level = self._level
        graphs = level.loop.graphs if level.loop is not None else None
        copies = graphs.copies() if graphs is not None else None
        values = {} if copies is None else {level.name: copies}
        drawn = host_mark() if self._is_repeated and self.host_random is False else None
        with self.substituted(values), self.precision(), sampling(self._problem) as choices:
            result = self._problem.training_step(moment.batch)
        if not is_tracing() and self.writes_in(moment.batch) != moment.writes:
            raise batch_error(level.name)
        if self.host_random is None:
            self.host_random = moment.random.host_moved()
            if not self.host_random:  # looking back at this moment must not move them either
                moment.random.forget_host()
        elif drawn is not None and drawn != host_mark():  # for the first time; from the next step on these are replayed
            self.host_random = True
        self.samples = self.samples or bool(choices)
        evaluation, metrics = self._read(result, choices)
        rewarded = "reward" in metrics
        return self._scoring.own_gradient(evaluation, choices, rewarded=rewarded, values=values, training=True), metrics

    def evaluate(self, values: Mapping[str, Tensors], moment: Moment | None, draw: int | None) -> Evaluation:
        """See :meth:`ProblemLevel.evaluate`."""
        level = self._level
        moment = moment or level.moment or level.next_moment()
        before = written(level.parameters)
        if not is_tracing() and self.writes_in(moment.batch) != moment.writes:
            raise batch_lost_error(level.name)
        with (
            self._untraced(moment),
            self.substituted(values),
            self.precision(evaluating=True),
            sampling(self._problem) as choices,
        ):
            if draw:
                reseed(draw, level.device)
            result = self._problem.training_step(moment.batch)
        if written(level.parameters) != before:
            raise parameters_error(level.name)
        evaluation, metrics = self._read(result, choices)
        self._captured.look(evaluation.loss, values)
        if draw is not None:
            return self._scoring.independent_draw(evaluation, choices, draw)
        return self._scoring.own_gradient(evaluation, choices, rewarded="reward" in metrics, values=values)

    def writes_in(self, batch: Any) -> int:
        """How often the tensors of a batch have been written to, where that matters."""
        return written_in(batch) if self._is_repeated else 0

    def choices(self) -> tuple[Choice, ...]:
        """What the running evaluation sampled so far; outside of one, what another on the current batch samples."""
        if (so_far := sampled_so_far(self._problem)) is not None:
            return so_far
        moment = self._level.moment or self._level.next_moment()
        with self._untraced(moment), self.precision(), sampling(self._problem) as choices:
            self._problem.training_step(moment.batch)
        return tuple(choices)

    def precision(self, *, evaluating: bool = False) -> Any:
        """The context in which it runs.

        Args:
            evaluating: For a derivative of the best response. Nothing scales that loss, and its second derivatives
                would underflow in ``fp16``: they are taken in full precision.
        """
        kind = self._problem.config.precision
        if kind == "fp32" or (evaluating and kind == "fp16"):
            return NOTHING
        # No cache of casts: one made while gradients are off would cut the graph of an evaluation inside another.
        return torch.autocast(self._level.device.type, PRECISIONS[kind], cache_enabled=False)

    def substituted(self, values: Mapping[str, Tensors]) -> Any:
        """The context in which other tensors stand in for the parameters of the problem and its neighbours."""
        return Substituted(self._around, values) if values else NOTHING

    def _read(self, result: Any, choices: Sequence[Choice]) -> tuple[Evaluation, dict[str, Tensor]]:
        evaluation, metrics = read_loss(self._level.name, result, self._level.device)
        if not choices:
            return evaluation, metrics
        return evaluation._replace(choices=tuple(choice.log_prob for choice in choices)), metrics

    def _untraced(self, moment: Moment) -> Untraced:
        """Replay the random numbers of a moment on private buffers."""
        return Untraced(
            self._problem, self.buffers, moment, self._level.accelerator, host=self.host_random is not False
        )

    @cached_property
    def _is_repeated(self) -> bool:
        """Whether a problem above may evaluate it again on the same batch."""
        return bool(self._problem.uppers)

    @cached_property
    def _around(self) -> dict[str, ProblemLevel]:
        return {name: problem.level for name, problem in self._problem.reachable.items()}

    @cached_property
    def _captured(self) -> Captured:
        return Captured(self._level.name, self._around)

    @cached_property
    def buffers(self) -> Buffers:
        """The buffers that it may read, or write to: a neighbour's forward may read a neighbour of its own."""
        found: dict[str, Problem] = {}
        waiting = [self._problem]
        while waiting:
            problem = waiting.pop()
            if problem.name not in found:
                found[problem.name] = problem
                waiting.extend(problem.reachable.values())
        return Buffers([problem.module for problem in found.values()])
