"""What sampled choices make of a problem's loss: the score function where it counts, a warning where it is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..hypergrad.errors import ProblemError, warn_once
from ..hypergrad.objective import Evaluation
from ..hypergrad.score import surrogate
from ..hypergrad.tensors import Tensors
from .sampling import Choice

if TYPE_CHECKING:
    from .problem import Problem


class Scoring:
    """The score function of one problem's choices.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._scores = problem.config.estimator == "score"
        self._checked = False

    def own_gradient(
        self,
        evaluation: Evaluation,
        choices: Sequence[Choice],
        *,
        rewarded: bool,
        values: Mapping[str, Tensors],
        training: bool = False,
    ) -> Evaluation:
        """The evaluation with the loss that has the gradient which the problem descends.

        Args:
            evaluation: What ``training_step`` returned.
            choices: What it sampled.
            rewarded: Whether that was a reward.
            values: Tensors that stood in for some problems' parameters.
            training: Whether it was evaluated to train the problem.

        Raises:
            ProblemError: The estimator does not fit what ``training_step`` returned.
        """
        problem = self._problem
        if not choices and not rewarded and evaluation.loss.requires_grad and not self._scores:
            return evaluation
        scored = any(choice.requires_grad for choice in evaluation.choices)
        # First-order methods evaluate a loss without derivatives with respect to the problem's own parameters.
        own = values.get(problem.name, problem.level.parameters)
        refuses = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in own)
        if problem.config.estimator == "score":
            if not scored and refuses:
                raise ProblemError(
                    f"problem '{problem.name}': estimator='score' needs choices whose distribution depends on "
                    "parameters that are trained; draw them with self.sample(distribution)"
                )
            return evaluation._replace(loss=surrogate([evaluation]))
        if (scored or rewarded) and not evaluation.loss.requires_grad and refuses:
            raise ProblemError(
                f"problem '{problem.name}': its {'reward' if rewarded else 'loss'} cannot be differentiated: draw the "
                "choices that it depends on with self.sample(distribution), and set Config(estimator='score')"
            )
        if scored and not self._checked:
            self._warn_of_ignored([choice for choice in choices if choice.log_prob.requires_grad], values)
        self._checked = self._checked or training
        return evaluation

    def independent_draw(self, evaluation: Evaluation, choices: Sequence[Choice], draw: int) -> Evaluation:
        """An evaluation under the choices of one of several draws, for methods that average over them.

        Raises:
            ProblemError: It sampled nothing, or nothing that could be drawn again.
        """
        name = self._problem.name
        if not choices:
            raise ProblemError(
                f"problem '{name}': type 'reinforce', but its training_step samples nothing; draw choices with "
                "self.sample(distribution), or use a method for losses that do not sample (cg, neumann, ...)"
            )
        if draw and any(choice.given and choice.log_prob.requires_grad for choice in choices):
            raise ProblemError(
                f"problem '{name}': a choice given to self.sample(value=...) cannot be drawn again, and copies of it "
                "are no independent draws: set reinforce_samples=1"
            )
        return evaluation

    def _warn_of_ignored(self, choices: Sequence[Choice], values: Mapping[str, Tensors]) -> None:
        """Warn where a distribution depends on what some gradient is taken with respect to, and that one ignores it.

        Choices that are meant as plain random numbers are drawn under ``torch.no_grad()``, or from a distribution that
        was detached: they do not come up here.
        """
        problem, hierarchy = self._problem, self._problem.level.hierarchy
        if hierarchy is None:
            return
        around = {name: values.get(name, other.level.parameters) for name, other in problem.reachable.items()}
        reached = _reached([choice.log_prob for choice in choices], around)
        name, inside, method = problem.name, hierarchy.inside, hierarchy.method(problem.name)
        own = [other for other in around if other in reached and other in (name, *inside[name])]
        above = [other for other in around if other in reached and _responds(name, other, inside)]
        if own:
            warn_once(
                f"choices of {name}: own",
                f"problem '{name}': what it samples depends on the parameters of {_quoted(own)}, and its own gradient "
                "ignores that: set Config(estimator='score'), or draw under torch.no_grad() if it is meant to",
            )
        if above and not method.differentiates_choices:
            warn_once(
                f"choices of {name}: response",
                f"problem '{name}': what it samples depends on the parameters of {_quoted(above)}, and "
                f"'{method.name}', which differentiates its best response, ignores that: set Config(type='reinforce'), "
                "or draw under torch.no_grad() if it is meant to",
            )


def _responds(name: str, upper: str, inside: Mapping[str, Sequence[str]]) -> bool:
    """Whether some derivative of the best response of ``name`` with respect to ``upper`` is ever taken."""
    return any(name in inside[top] and upper in (top, *inside[top]) for top in inside) and upper not in inside[name]


def reseed(stream: int, device: torch.device) -> None:
    """Go from the random numbers that are about to come to others, always the same ones for a stream (any number).

    On the host and on the device; ``torch.manual_seed`` would take milliseconds, for all the devices there are.
    """
    seed = int(torch.randint(2**32, 2**62, ()).item()) + stream
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        module = torch.get_device_module(device)
        with module.device(device):
            module.manual_seed(seed)


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _reached(roots: Sequence[Tensor], targets: Mapping[str, Tensors]) -> set[str]:
    """Which targets some root was computed from, as far as one gets without going through another target."""
    owners: dict[Any, set[str]] = {}
    for name, tensors in targets.items():
        for tensor in tensors:
            if tensor.requires_grad:
                owners.setdefault(get_gradient_edge(tensor).node, set()).add(name)
    found: set[str] = set()
    seen: set[Any] = set()
    front: list[Any] = [get_gradient_edge(root).node for root in roots]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in owners:
            found |= owners[node]
        else:
            front.extend(following for following, _ in node.next_functions)
    return found
