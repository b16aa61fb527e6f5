"""What a run is in the middle of: there it takes no other step and no checkpoint, and all that only looks is free."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Callback, CheckpointWarning, Config, Engine, EngineConfig, ProblemError
from multilevel.engine.callbacks import KeepBest
from multilevel.engine.interruption import Interrupted

from ..givens import Given, assert_same, bits

STEPS, AT = 6, 2
HOOKS = ("on_gradients", "on_level_step", "on_step_end", "on_validation")
Call = Callable[[Engine], Any]


class Calls(Callback):
    """Does something once, in a hook."""

    def __init__(self, hook: str, call: Call) -> None:
        self.done = False

        def once(engine: Engine, *event: Any) -> None:
            if engine.step_count >= AT and not self.done:
                self.done = True
                call(engine)

        setattr(self, hook, once)


def built(folder: Path | None, *callbacks: Callback, **config: Any) -> Engine:
    torch.manual_seed(0)

    def follow(problem: Given, batch: Tensor) -> Tensor:
        return (problem.module() - problem.upper() - batch + torch.rand(())).square().sum() / 2

    class Upper(Given):
        def validation_step(self, batch: Any) -> Tensor:
            return self.lower().sum()

    data = torch.utils.data.DataLoader(torch.randn(7, 1), 2, shuffle=True)
    lower = Given("lower", follow, train_data_loader=data, config=Config(type="identity", unroll_steps=2))
    upper = Upper("upper", lambda p, b: (p.lower() - 1).square().sum() / 2)
    settings = {"train_iters": STEPS, "seed": 0, "valid_step": 1, "run_dir": folder and str(folder), **config}
    return Engine([upper, lower], edges=[("upper", "lower")], config=EngineConfig(**settings), callbacks=callbacks)


def trained(engine: Engine) -> dict[str, Any]:
    engine.run()
    return {**bits(engine), "callbacks": {}}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("call", [Engine.run, Engine.step])
def test_a_step_takes_no_other_inside_it(hook: str, call: Call) -> None:
    engine = built(None, Calls(hook, call))
    with pytest.raises(ProblemError, match=rf"engine.{call.__name__}\(\): was called .* while an engine step of this"):
        engine.run()
    assert engine.step_count <= AT + 1


@pytest.mark.parametrize("hook", ["on_run_start", "on_run_end"])
def test_a_run_takes_no_other_inside_it(hook: str) -> None:
    engine = built(None, Calls(hook, Engine.run), train_iters=AT)
    engine.step_count = AT
    with pytest.raises(ProblemError, match=r"engine.run\(\): was called .* while a run of this engine is underway"):
        engine.run()


@pytest.mark.parametrize("hook", HOOKS[:2])
@pytest.mark.parametrize("call", [Engine.save_checkpoint, Engine.resume])
def test_a_level_step_is_neither_saved_nor_left_in_the_middle(hook: str, call: Call, tmp_path: Path) -> None:
    engine = built(tmp_path, Calls(hook, call))
    with pytest.raises(
        ProblemError, match=rf"engine.{call.__name__}\(\): was called in the middle .* Call it in on_step"
    ):
        engine.run()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("hook", HOOKS[2:])
def test_what_is_saved_between_level_steps_goes_on_to_the_same_bits(hook: str, tmp_path: Path) -> None:
    def stop(engine: Engine) -> None:
        assert engine.save_checkpoint() is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, Calls(hook, stop)).run()
    engine = built(tmp_path)
    assert engine.resume() == AT
    assert_same({**trained(engine), "last_validation": {}}, {**trained(built(None)), "last_validation": {}})


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "call",
    [Engine.validate, Engine.close, Engine.state_dict, lambda e: e.hypergradient("upper"), lambda e: e.audit("upper")],
)
def test_what_only_looks_changes_nothing(hook: str, call: Call) -> None:
    got, expected = trained(built(None, callback := Calls(hook, call))), trained(built(None))
    assert callback.done
    assert_same(got, expected)


def test_what_was_refused_may_be_done_where_the_step_has_ended(tmp_path: Path) -> None:
    engine = built(tmp_path, Calls("on_level_step", Engine.step))
    with pytest.raises(ProblemError):
        engine.run()
    assert not list(engine.underway)
    again = built(tmp_path / "again", Calls("on_step_end", lambda e: signal.raise_signal(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        again.run()
    assert again.save_checkpoint() is not None
    again.step()
    again.run()
    assert again.step_count == STEPS


def test_a_best_checkpoint_in_the_middle_of_a_level_step_is_warned_of(tmp_path: Path) -> None:
    best = KeepBest("upper/loss", count=99)
    with pytest.warns(
        CheckpointWarning, match=r"KeepBest: step 2: validate\(\) was called in the middle of a level st"
    ):
        built(tmp_path, Calls("on_level_step", Engine.validate), best).run()
    assert len(best.kept) == STEPS
