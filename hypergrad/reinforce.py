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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from .checks import at_least
from .errors import ConfigError, ProblemError, choices
from .identity import Identity
from .linearization import Linearization
from .method import ImplicitMethod, Method
from .moving import Response
from .objective import Evaluation, Objective
from .registry import build_method, register
from .score import log_likelihood, surrogate
from .standalone import Level, apply_method
from .tensors import Tensors, add, dot, filled

if TYPE_CHECKING:
    from torch import Tensor

BASELINES = ("loo", "ema", "none")


@register("reinforce")
@dataclass(frozen=True)
class Reinforce(Method):
    """Score function of the sampled choices plus the pathwise part; unbiased for every baseline.

    Unbiased for - B P v with P the identity, a scaled identity, or what ``inverse`` makes of a Hessian that does not
    depend on the choices. Otherwise H is itself estimated from the same draws, and E[B H^{-1}] is not E[B] E[H]^{-1}:
    both for what is nonlinear in H (of order 1 / samples) and for the draws that H and B share. More samples, and
    damping, make it smaller. The same goes for levels in between, whose derivatives multiply two estimates.

    Args:
        samples: Independent draws of all choices, each one evaluation of the loss. The first is the one trained on.
        baseline: What a draw's reward is compared with: ``"loo"``, the mean of the other draws (with one draw there is
            none, and this is ``"none"``); ``"ema"``, a running mean over upper steps, which responses
            inside other objectives (nested levels) go without; ``"none"``.
        inverse: How H^{-1} v is approximated, on the mean loss of the draws: a method object, a name, or a mapping
            with a name and options. The identity by default.
        decay: Of the running mean of ``"ema"``.

    Raises:
        ConfigError: samples < 1, an unknown baseline, decay outside [0, 1), or an inverse that does not solve with H.
    """

    differentiates_choices: ClassVar[bool] = True

    samples: int = 1
    baseline: Literal["loo", "ema", "none"] = "loo"
    inverse: ImplicitMethod = Identity()  # noqa: RUF009  (a frozen value)
    decay: float = 0.9

    def __post_init__(self) -> None:
        at_least("reinforce", "samples", self.samples, 1)
        if self.baseline not in BASELINES:
            raise ConfigError(f"reinforce: unknown baseline '{self.baseline}'{choices(str(self.baseline), BASELINES)}")
        if isinstance(self.decay, bool) or not isinstance(self.decay, (int, float)) or not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"reinforce: decay must be at least 0 and below 1, got {self.decay!r}")
        object.__setattr__(self, "inverse", _inverse(self.inverse))
        if self.samples > 1 and getattr(self.inverse, "curvature", "hessian") == "ggn":
            raise ConfigError(
                f"reinforce: an inverse with curvature='ggn' takes samples=1, got {self.samples}: the draws have no "
                "'outputs' in common"
            )

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        objective = self._sampled(at.objective)
        # Inside another objective, the mean may already know the rewards of this very step: no baseline for them.
        if self.baseline == "ema" and not at.objective.nested:
            return self.inverse.pull_back(_Compared(objective, at, self.decay), cotangent)
        return self.inverse.pull_back(at.of(objective), cotangent)

    def displacement(self, base: Response, beside: Response) -> Tensors:
        return self.inverse.displacement(
            base._replace(objective=self._sampled(base.objective)),
            beside._replace(objective=self._sampled(beside.objective)),
        )

    def _sampled(self, objective: Objective) -> Objective:
        """The expected loss, estimated by independent draws: an objective like any other."""
        if objective.draw is None:
            raise ProblemError("reinforce: only problems that call self.sample() can be sampled, not plain functions")
        draw = objective.draw

        def function(solution: Tensors, inputs: Tensors) -> Evaluation:
            draws = draw(solution, inputs, self.samples)
            likelihood = torch.stack([log_likelihood(d).mean() for d in draws]).mean()
            outputs = draws[0].outputs if len(draws) == 1 else None
            loss = surrogate(draws, "loo" if self.baseline == "loo" else "none")
            return Evaluation(loss, outputs, choices=(likelihood,))

        return dataclasses.replace(objective, function=function)


class _Compared(Linearization):
    """A sampled objective whose rewards - <q, grad L> are compared with their mean in earlier upper steps."""

    def __init__(self, objective: Objective, at: Linearization, decay: float) -> None:
        super().__init__(objective, at.solution, at.inputs)
        self._decay = decay

    def mixed_product(self, vector: Tensors) -> Tensors:
        slope = tuple(g.detach().to_dense() if g.is_sparse else g.detach() for g in self.gradient)
        baseline = self._running_mean(-dot(vector, slope))
        (likelihood,) = self.evaluation.choices
        score: Sequence[Tensor | None] = [None] * len(self.inputs)
        if likelihood.requires_grad and self.inputs:
            score = torch.autograd.grad(likelihood, self.inputs, retain_graph=True, allow_unused=True)
        score = filled(score, self.inputs)
        return add(super().mixed_product(vector), score, baseline)

    def _running_mean(self, reward: Tensor) -> Tensor:
        """The mean of earlier upper steps, which this one then enters; zero before there was one."""
        before: Tensor | None = self.state.get("reinforce.baseline")
        after = reward if before is None else self._decay * before + (1 - self._decay) * reward
        self.state["reinforce.baseline"] = after
        return torch.zeros_like(reward) if before is None else before


def _inverse(given: Any) -> ImplicitMethod:
    method = given
    if isinstance(given, (str, Mapping)):
        options = {"name": given} if isinstance(given, str) else dict(given)
        if not isinstance(name := options.pop("name", None), str):
            raise ConfigError(f"reinforce: inverse must be a mapping with the method's `name`, got {given!r}")
        method = build_method(name, **options)
    if not isinstance(method, ImplicitMethod):
        raise ConfigError(
            "reinforce: inverse must be a method that solves with the Hessian (identity, cg, neumann, ...), "
            f"got {method}"
        )
    return method


def reinforce(
    vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False
) -> Tensors | None:
    """Pull ``vector`` back through the best response of a problem that samples.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Reinforce, vector, curr, prev, sync)
