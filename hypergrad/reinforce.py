"""REINFORCE: the derivative of a best response whose problem samples choices that cannot be differentiated.

The loss of such a problem is an expectation over a ~ pi(a; lambda), where lambda are an upper's parameters. With
q = P v, P an approximation of the inverse Hessian of the expected loss,

    - d/dlambda E[<q, grad L(theta, lambda, a)>]
        = E[ - <q, grad L> grad_lambda log pi(a; lambda) ]  +  E[ - d/dlambda <q, grad L> at fixed a ],

a score-function part with reward - <q, grad L>, and a pathwise part. Williams 1992 (Machine Learning 8, equation 11);
leave-one-out baseline: Kool, van Hoof and Welling 2019 (Buy 4 REINFORCE samples, get a baseline for free).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from .checks import at_least
from .errors import ConfigError, ProblemError, choices
from .identity import Identity
from .linearization import Linearization, gradients
from .method import ImplicitMethod, InverseMethod
from .moving import Response
from .objective import Evaluation, Objective
from .registry import build_method, register
from .score import log_likelihood, surrogate
from .standalone import Level, apply_method
from .tensors import Tensors, add, dot, negative

if TYPE_CHECKING:
    from torch import Tensor

BASELINES = ("loo", "ema", "none")


@register("reinforce")
@dataclass(frozen=True)
class Reinforce(InverseMethod):
    """Score function of the sampled choices plus the pathwise part; unbiased for every baseline.

    Args:
        samples: Independent draws of all choices, each one evaluation of the loss.
        baseline: What a draw's reward is compared with: ``"loo"``, the mean of the other draws (with one draw there is
            none, and this is ``"none"``); ``"ema"``, a running mean over upper steps; ``"none"``.
        inverse: How H^{-1} v is approximated, on the mean loss of the draws: a method object, a name, or a mapping
            with a name and options. The identity by default.
        decay: Of the running mean of ``"ema"``.

    Raises:
        ConfigError: samples < 1, an unknown baseline, decay outside [0, 1), or an inverse that solves nothing.
    """

    samples: int = 1
    baseline: Literal["loo", "ema", "none"] = "loo"
    inverse: ImplicitMethod = field(default_factory=Identity)
    decay: float = 0.9

    def __post_init__(self) -> None:
        at_least("reinforce", "samples", self.samples, 1)
        if self.baseline not in BASELINES:
            raise ConfigError(f"reinforce: unknown baseline '{self.baseline}'{choices(str(self.baseline), BASELINES)}")
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"reinforce: decay must be at least 0 and below 1, got {self.decay!r}")
        object.__setattr__(self, "inverse", _inverse(self.inverse))

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        sampled = at.of(self._sampled(at.objective))
        direction = sampled.inverse_product(self.inverse, cotangent)
        if self.baseline != "ema" or at.differentiable:
            return negative(sampled.mixed_product(direction))
        reward = -dot(direction, tuple(g.detach() for g in sampled.gradient))
        pulled = negative(sampled.mixed_product(direction))
        return add(pulled, self._score(at), -self._running_mean(at, reward))

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return self.inverse.solve(at.of(self._sampled(at.objective)), vector)

    def displacement(self, base: Response, beside: Response) -> Tensors:
        return self.inverse.displacement(
            base._replace(objective=self._sampled(base.objective)),
            beside._replace(objective=self._sampled(beside.objective)),
        )

    def _sampled(self, objective: Objective) -> Objective:
        """The expected loss, estimated by independent draws: an objective like any other."""

        def function(solution: Tensors, inputs: Tensors) -> Evaluation:
            draws = self._draws(objective, solution, inputs)
            outputs = draws[0].outputs if len(draws) == 1 else None
            return Evaluation(surrogate(draws, "loo" if self.baseline == "loo" else "none"), outputs)

        return dataclasses.replace(objective, function=function)

    def _draws(self, objective: Objective, solution: Tensors, inputs: Tensors) -> Sequence[Evaluation]:
        if objective.draw is None:
            raise ProblemError("reinforce: only problems that call self.sample() can be sampled, not plain functions")
        draws = objective.draw(solution, inputs, self.samples)
        if not any(draw.choices for draw in draws):
            raise ProblemError(
                "reinforce: training_step samples nothing; draw choices with self.sample(distribution), or use a "
                "method for losses that do not sample (cg, neumann, ...)"
            )
        return draws

    def _running_mean(self, at: Linearization, reward: Tensor) -> Tensor:
        """The mean reward of earlier upper steps, which this one then enters; zero before there was one."""
        before = at.state.get("reinforce.baseline")
        if before is None:
            at.state["reinforce.baseline"] = reward
            return torch.zeros_like(reward)
        at.state["reinforce.baseline"] = self.decay * before + (1 - self.decay) * reward
        return before

    def _score(self, at: Linearization) -> Tensors:
        """The mean of grad log pi over the draws, with respect to the inputs."""
        with torch.enable_grad():
            draws = self._draws(at.objective, at.solution, at.inputs)
            likelihood = torch.stack([log_likelihood(draw).mean() for draw in draws]).mean()
        return gradients(likelihood, at.inputs)


def _inverse(given: Any) -> ImplicitMethod:
    options = dict(given) if isinstance(given, Mapping) else {"name": given}
    method = build_method(options.pop("name"), **options) if isinstance(given, (str, Mapping)) else given
    if not isinstance(method, ImplicitMethod):
        raise ConfigError(f"reinforce: inverse must be a method that approximates H^{{-1}} v, such as cg; got {method}")
    return method


def reinforce(
    vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False
) -> Tensors | None:
    """Pull ``vector`` back through the best response of a problem that samples.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Reinforce, vector, curr, prev, sync)
