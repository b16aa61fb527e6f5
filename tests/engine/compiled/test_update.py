"""An optimizer's compiled pass is torch's own step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from multilevel.engine.compiled import CompiledUpdate
from multilevel.engine.compiled import update as update_file
from multilevel.hypergrad.errors import CompileWarning

from ...conftest import EXACT
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


def wrong(right: Callable[..., Any], of: str) -> Callable[..., Any]:
    """A compiler whose programs move the parameters, or the last tensor of the state, 5 % further."""

    def compiled(graph: Any, examples: Any) -> Any:
        function = right(graph, examples)

        def program(*given: torch.Tensor) -> Any:
            changed = given[:2] if of == "parameters" else given[-2:-1]  # behind the state there is the learning rate
            before = [tensor.clone() for tensor in changed]
            result = function(*given)
            for tensor, start in zip(changed, before, strict=True):
                tensor += 0.05 * (tensor - start)
            return result

        return program

    return compiled


@pytest.mark.parametrize("of", ["parameters", "state"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_program_that_steps_elsewhere_is_refused(
    of: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_file, "compiled", wrong(update_file.compiled, of))

    def squares(problem: Any, batch: Any) -> torch.Tensor:
        return (problem.module(torch.ones(3, 2, dtype=dtype)) - 1).square().mean()

    pair = Twins(solo(squares, lambda: nn.Linear(2, 2, dtype=dtype), optimizer=OPTIMIZERS["adam"]))
    with pytest.warns(CompileWarning, match=f"steps eagerly: its program moves the {of} elsewhere than the eager step"):
        pair.step(6)
    assert not update(pair).is_compiled
    pair.assert_equal(1e-6 if dtype is torch.float32 else EXACT)


def test_a_program_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(graph: Any, examples: Any) -> Any:
        def program(*given: torch.Tensor) -> Any:
            given[0].zero_()
            raise RuntimeError("no such kernel")

        return program

    monkeypatch.setattr(update_file, "compiled", failing)
    pair = twins(OPTIMIZERS["adam"])
    with pytest.warns(CompileWarning, match="steps eagerly: .*RuntimeError: no such kernel"):
        pair.step(6)
    pair.assert_equal()


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
