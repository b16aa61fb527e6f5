"""A recorded inner loop: what :class:`Unroll` differentiates in reverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim import Optimizer

from .clipping import Clipping
from .objective import Objective
from .tensors import Tensors
from .update_rules import Options, ParameterState
from .updates import UpdateRule, group_options, optimizer_states, update_rule

NO_CLIPPING = Clipping()


@dataclass(frozen=True)
class Step:
    """One optimizer step as it was taken.

    Attributes:
        objectives: The objectives of its micro-batches; the gradient is the mean of theirs. Each evaluates the loss of
            the recorded batch under the recorded random state (and, in a middle level, at the solutions that its lowers
            had then), as a function of the same inputs as the best response.
        groups: The options of each of the optimizer's parameter groups at that moment (a schedule changes them),
            without the key ``"params"``.
        clipping: What was done to the gradient.
        before: Copies of the parameters and of the optimizer's state of each before the step; ``None`` where they are
            to be found again by taking the steps before it once more.
    """

    objectives: tuple[Objective, ...]
    groups: tuple[Options, ...]
    clipping: Clipping = NO_CLIPPING
    before: tuple[Tensors, tuple[ParameterState, ...]] | None = None


@dataclass
class Tape:
    """The steps since the inner loop began.

    Attributes:
        start: The parameters when it began (copies).
        optimizer_state: The optimizer's state of each parameter when it began (copies), in the order of the
            parameters; an empty dict where it had none.
        rule: The optimizer's update of these parameters.
        initial: Computes ``start`` from the inputs, where the starting point depends on them (a meta-learned
            initialisation); ``None`` where it does not.
        steps: In the order taken.
    """

    start: Tensors
    optimizer_state: tuple[ParameterState, ...]
    rule: UpdateRule
    initial: Callable[[Tensors], Tensors] | None = None
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def begin(
        cls, optimizer: Optimizer, parameters: Sequence[Tensor], initial: Callable[[Tensors], Tensors] | None = None
    ) -> Tape:
        """An empty tape from where the parameters and the optimizer are now.

        Raises:
            ConfigError: The optimizer's update cannot be differentiated.
        """
        rule = update_rule(optimizer, parameters)
        start = tuple(p.detach().clone() for p in parameters)
        return cls(start, optimizer_states(optimizer, parameters), rule, initial)

    def record(self, optimizer: Optimizer, objectives: Sequence[Objective], clipping: Clipping = NO_CLIPPING) -> None:
        """Note a step; call it before the optimizer and its scheduler step."""
        self.steps.append(Step(tuple(objectives), group_options(optimizer), clipping))

    def keep_point(self, optimizer: Optimizer, parameters: Sequence[Tensor], newest: int) -> None:
        """Copy where the step that was noted last begins; so many of the newest of these copies stay."""
        before = tuple(p.detach().clone() for p in parameters), optimizer_states(optimizer, parameters)
        self.steps[-1] = dataclasses.replace(self.steps[-1], before=before)
        if len(self.steps) > newest:
            self.steps[-1 - newest] = dataclasses.replace(self.steps[-1 - newest], before=None)
