"""An optimizer's compiled pass is torch's own step."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from multilevel.engine.compiled import CompiledUpdate
from multilevel.hypergrad.errors import CompileWarning

from .solo import solo
from .twins import Twins

pytestmark = pytest.mark.usefixtures("recorded")

OPTIMIZERS: dict[str, Any] = {
    "adam": partial(torch.optim.Adam, lr=0.02),
    "amsgrad, decaying, up": partial(torch.optim.Adam, lr=0.02, amsgrad=True, weight_decay=0.1, maximize=True),
    "adamw": partial(torch.optim.AdamW, lr=0.02),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, centered=True, momentum=0.5),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, lr_decay=0.1),
}


def loss(problem: Any, batch: Any) -> torch.Tensor:
    return (problem.module(torch.ones(3, 2)) - 1).square().mean()


def twins(optimizer: Any, **parts: Any) -> Twins:
    return Twins(solo(loss, lambda: nn.Linear(2, 2), optimizer=optimizer, **parts))


def update(pair: Twins) -> CompiledUpdate:
    found = pair.compiled["fit"].level.update.optimizer_step
    assert isinstance(found, CompiledUpdate)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_steps_as_torch_does(name: str) -> None:
    pair = twins(OPTIMIZERS[name])
    pair.step(6)
    pair.assert_equal()
    assert update(pair).is_compiled


def test_settings_that_change_all_the_time_are_left_to_torch() -> None:
    pair = twins(OPTIMIZERS["adam"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for decay in range(8):
            for engine in (pair.eager, pair.compiled):
                engine["fit"].optimizer.param_groups[0]["weight_decay"] = 0.01 * decay
            pair.step(1)
    (warning,) = (w for w in caught if issubclass(w.category, CompileWarning))
    assert "the optimizer of 'fit' is not compiled and steps eagerly: settings" in str(warning.message)
    pair.assert_equal()


def test_complex_numbers_are_left_to_torch() -> None:
    def module() -> nn.Module:
        return nn.Linear(2, 2, dtype=torch.complex128)

    def apart(problem: Any, batch: Any) -> torch.Tensor:
        return (problem.module.weight - 1j).abs().square().sum() + problem.module.bias.abs().square().sum()

    pair = Twins(solo(apart, module, optimizer=OPTIMIZERS["adam"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileWarning)
        pair.step(6)
    pair.assert_equal()
    assert not update(pair).is_compiled


def test_gradient_descent_is_left_to_torch() -> None:
    pair = twins(partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    pair.step(4)
    pair.assert_equal()
    assert not update(pair).is_compiled
