"""The settings of one problem."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..hypergrad.errors import ConfigError
from .method_settings import MethodSettings


class Config(MethodSettings):
    """How one problem is trained, and how its best response is differentiated.

    Args:
        type: How *this* problem's best response is differentiated: a method's name, a mapping with its options
            (``{"name": "cg", "iterations": 10}``), or a method object (``CG(iterations=10)``).
        unroll_steps: Optimizer steps this problem takes for each step of its uppers.
        gradient_accumulation: Batches whose mean gradient makes one optimizer step.
        gradient_clipping: Largest norm of the gradient of all parameters together; 0 leaves it alone.
        gradient_clipping_by: ``"norm"``, or ``"value"``, where ``gradient_clipping`` is the largest magnitude of an
            element.
        precision: What ``training_step`` computes in, by ``torch.autocast`` of the problem's device. The parameters
            stay as they are. With ``"fp16"`` the loss is scaled, hypergradients with it; steps whose gradient
            overflowed are skipped and counted, and derivatives of this problem's best response, which nothing scales,
            are taken in full precision.
        warmup_steps: Optimizer steps this problem takes alone before its uppers begin.
        scheduler_metric: What ``ReduceLROnPlateau`` watches: a metric of this problem's ``training_step`` (at each
            optimizer step), or ``"validation/..."``, a metric of the validation (at each validation).
        estimator: How this problem's own loss is differentiated: ``"pathwise"``, or ``"score"`` for an expectation over
            choices drawn with ``self.sample`` (policy gradient), where the loss or reward need not be differentiable.
        log_step: Write this problem's metrics every so many of its batches; -1 goes by the engine's setting.
        darts_alpha: ``alpha`` of type ``darts``. This and the following are refused where the type does not read them.
        neumann_iterations: ``iterations`` of type ``neumann``.
        neumann_alpha: ``alpha`` of type ``neumann``.
        cg_iterations: ``iterations`` of type ``cg``.
        cg_alpha: ``alpha`` of type ``cg``.
        reinforce_samples: ``samples`` of type ``reinforce``.
        reinforce_baseline: ``baseline`` of type ``reinforce``.

    Raises:
        ConfigError: Anything above is unknown, out of range, or not read by the chosen type.
    """

    unroll_steps: int = Field(default=1, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    gradient_clipping: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    gradient_clipping_by: Literal["norm", "value"] = "norm"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    warmup_steps: int = Field(default=0, ge=0)
    scheduler_metric: str = Field(default="loss", min_length=1)
    estimator: Literal["pathwise", "score"] = "pathwise"
    log_step: int = -1

    @field_validator("log_step")
    @classmethod
    def _steps_or_never(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ConfigError(f"expected at least 1, or -1 for the engine's setting, got {value}")
        return value
