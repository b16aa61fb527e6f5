"""Schedulers that watch a metric: the one that is named, where it is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from multilevel import Config, ConfigError, Engine, EngineConfig, ProblemError
from multilevel.problems.scheduling import Scheduling

from ..givens import Given, Vector

SCRIPT = [1.0, 0.9, 0.95, 0.96, 0.5, 0.6, 0.7, 0.8, 0.4]


class Measured(Given):
    """A training loss and a metric that a script gives."""

    def training_step(self, batch: Any) -> Any:
        return {"loss": self.module().square().sum(), "error": SCRIPT[self.count]}


class Validated(Engine):
    """A validation that the same script gives."""

    def validation(self) -> dict[str, float]:
        return {"error": SCRIPT[self.step_count - 1]}


def watching(metric: str, valid_step: int = 0, **config: Any) -> tuple[Engine, torch.optim.Optimizer]:
    module = Vector(1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    config = {"scheduler_metric": metric, **config}
    problem = Measured(
        "p", lambda p, b: None, module, optimizer=optimizer, scheduler=scheduler, config=Config(**config)
    )
    return Validated([problem], config=EngineConfig(train_iters=9, valid_step=valid_step)), optimizer


def by_hand(script: list[float]) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for value in script:
        scheduler.step(value)
    return optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("metric", "valid_step", "config", "script"),
    [
        ("error", 0, {}, SCRIPT),
        ("error", 0, {"gradient_accumulation": 3}, SCRIPT[2::3]),
        ("validation/error", 1, {}, SCRIPT),
        ("validation/error", 4, {}, [SCRIPT[3], SCRIPT[7], SCRIPT[8]]),
    ],
)
def test_the_named_metric_is_watched(metric: str, valid_step: int, config: dict[str, Any], script: list[float]) -> None:
    engine, optimizer = watching(metric, valid_step, **config)
    engine.run()
    assert optimizer.param_groups[0]["lr"] == by_hand(script)


def test_the_loss_is_watched_by_default() -> None:
    engine, optimizer = watching("loss")
    engine.run()
    assert optimizer.param_groups[0]["lr"] == 1e-3  # the loss only falls


def test_an_unknown_metric_names_those_that_are_there() -> None:
    engine, _ = watching("eror")
    with pytest.raises(ProblemError, match=r"watches 'eror'.*training_step returned; did you mean 'error'\?"):
        engine.run()
    engine, _ = watching("validation/eror", 1)
    with pytest.raises(ProblemError, match=r"the validation returned; did you mean 'error'\?"):
        engine.run()


@pytest.mark.parametrize("scheduler", [None, "step"])
def test_a_metric_that_nothing_reads_is_refused(scheduler: str | None) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    built = StepLR(optimizer, 1) if scheduler else None
    with pytest.raises(ConfigError, match="scheduler_metric='error' is read by ReduceLROnPlateau only"):
        Scheduling("p", built, "error")


def test_a_validation_that_never_comes_is_refused() -> None:
    with pytest.raises(ConfigError, match="'p': its scheduler watches 'error' of the validation, and valid_step is 0"):
        watching("validation/error", 0)
