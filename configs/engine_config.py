"""The settings of a run."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from ..hypergrad.errors import ConfigError
from .logger_choice import LoggerChoices
from .validation import Settings, refuse
from .watching import EarlyStoppingSettings, KeepBestSettings


class EngineConfig(Settings):
    """How long, where and with what response a hierarchy is trained, and what is kept of it on the way.

    Args:
        train_iters: Engine steps, each of which gives every leaf one batch.
        valid_step: Validate every so many engine steps, and after the last of ``train_iters``; 0 never validates.
        validate_first: Validate once before the first engine step as well.
        response: ``"total"`` lets the lowers of a middle problem respond while its own response is differentiated;
            ``"direct"`` holds them fixed, which is cheaper and biased.
        seed: Seeds Python, NumPy and torch: before anything is built from a file, and when the engine is constructed;
            ``None`` leaves them alone.
        device: ``"auto"`` (the first accelerator, else the CPU) or what ``torch.device`` accepts.
        log_step: Write metrics every so many engine steps.
        roll_back: After each optimizer step of an upper, the problems below it return to where their inner loop
            started and take it again, on the same batches and random numbers, with the new upper.
        run_dir: The folder that checkpoints and logs are written to, as a text or a path.
        checkpoint_every: Save the whole run every so many engine steps, and at the end; 0 never does.
        keep: How many of those checkpoints stay: the newest.
        loggers: Where metrics are written: ``"console"``, ``"jsonl"``, ``"csv"``, ``"tensorboard"``, ``"wandb"`` and
            ``"mlflow"``, each by its name or as a mapping with its options
            (``{"name": "wandb", "project": "mine", "mode": "offline"}``).
        non_finite: What happens when a loss or a gradient is infinite or not a number. ``"raise"`` ends the run (looked
            for when metrics and checkpoints are written); ``"skip"`` leaves out the batch; ``"restore"`` puts every
            problem back to where it last was finite and goes on with other batches. The last two look at every level
            step, which makes the host wait for the device.
        monitor: Measure every problem's learning rates and norms of gradient and hypergradient when metrics are
            written, and write them with these.
        timing: Wait for the device wherever time is taken, so that ``engine.times`` is true on a GPU as well, and print
            where the time went at the end.
        compile: Compile loss, gradient and hypergradient of each level step into one program, as ``torch.compile``
            does it. The numbers are those of the eager run up to rounding. What cannot be compiled runs eagerly, with a
            warning that says why.
        early_stopping: ``{"metric": "accuracy", "mode": "max", "patience": 5}``: end the run when a metric of the
            validation has not improved for so long, and return to the best parameters.
        keep_best: ``{"metric": "accuracy", "mode": "max", "count": 3}``: keep checkpoints of the best validations.
        strategy: Reserved; only ``"default"`` is available.

    Raises:
        ConfigError: Anything above is unknown, out of range or not available, or settings do not fit each other.
    """

    train_iters: int = Field(default=1000, ge=1)
    valid_step: int = Field(default=0, ge=0)
    validate_first: bool = False
    response: Literal["total", "direct"] = "total"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    device: str = "auto"
    log_step: int = Field(default=100, ge=1)
    roll_back: bool = False
    run_dir: str | None = Field(default=None, min_length=1)
    checkpoint_every: int = Field(default=0, ge=0)
    keep: int = Field(default=3, ge=1)
    loggers: LoggerChoices = ()
    non_finite: Literal["raise", "skip", "restore"] = "raise"
    monitor: bool = False
    timing: bool = False
    compile: bool = False
    early_stopping: EarlyStoppingSettings | None = None
    keep_best: KeepBestSettings | None = None
    strategy: str = "default"

    @field_validator("run_dir", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value != "auto":
            try:
                torch.device(value)
            except RuntimeError as error:
                raise ConfigError(f"expected 'auto', 'cpu', 'cuda', 'cuda:1', ..., got {value!r}") from error
        return value

    @field_validator("strategy")
    @classmethod
    def _no_strategy(cls, value: str) -> str:
        if value != "default":
            raise ConfigError(f"{value!r} is not available yet; leave it at 'default'")
        return value

    def model_post_init(self, context: Any) -> None:
        """Check that what watches validations has any."""
        for key in ("early_stopping", "keep_best"):
            if getattr(self, key) is not None and not self.valid_step:
                raise refuse("watches the validation, and valid_step is 0; give a number of engine steps", key)
