"""Whatever callbacks keep and add, checkpoints are written, and hold all of it that is data."""

from __future__ import annotations

import threading
from collections import deque
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multilevel import Callback, CheckpointWarning, Engine, EngineConfig
from multilevel.engine.callbacks import KeepBest
from multilevel.engine.callbacks.added import as_metric
from multilevel.hypergrad.errors import CheckpointError

from ...givens import Given, assert_same, square
from .scripted import EVERY, scripted
from .written import Written


class Mode(Enum):
    SMALLER = "min"


DATA = {
    "number": np.mean([0.1, 0.2]),
    "array": np.arange(3, dtype=np.int16),
    "member": Mode.SMALLER,
    "last": deque([1.0, 2.0], maxlen=2),
    "names": {"a", "b"},
    "pair": (1, (2.5, "x")),
    "tensor": torch.arange(3.0),
}
FOREIGN: dict[str, Any] = {
    "rule": lambda: 1,
    "lock": threading.Lock(),
    "stream": (i for i in range(3)),
    "path": Path("x"),
    "texts": np.array(["a"]),
}


class Keeping(Callback):
    """Has a state, and takes one up."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


class Adding(Callback):
    """Adds metrics, and keeps nothing."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        self.metrics = metrics

    def on_level_step(self, engine: Engine, problem: Any, metrics: dict[str, Any]) -> None:
        metrics.update(self.metrics)


def built(folder: Path, *callbacks: Callback, iters: int = 2) -> Engine:
    config = EngineConfig(train_iters=iters, checkpoint_every=1, run_dir=str(folder))
    return Engine([Given("p", square)], config=config, callbacks=callbacks)


def warned(engine: Engine) -> list[str]:
    with pytest.warns(CheckpointWarning) as caught:
        engine.run()
    return sorted(str(warning.message) for warning in caught)


@pytest.mark.parametrize("state", [*({key: value} for key, value in DATA.items()), DATA, [1, 2], 5, None, {}])
def test_a_state_of_data_comes_back(state: Any, tmp_path: Path) -> None:
    built(tmp_path, Keeping(state)).run()
    again = Keeping({} if state == {} else None)
    assert built(tmp_path, again).resume() == 2
    if isinstance(state, dict) and "array" in state:
        assert type(again.state["array"]) is np.ndarray
        assert_same({**again.state, "array": list(again.state["array"])}, {**state, "array": list(state["array"])})
    else:
        assert type(again.state) is type(state)
        assert_same(again.state, state)


def test_what_is_no_data_is_named_and_left_out_of_a_state(tmp_path: Path) -> None:
    messages = warned(built(tmp_path, Callback(), Keeping({**DATA, **FOREIGN})))
    assert [message.partition(" is not kept in the checkpoint")[0] for message in messages] == sorted(
        f"'{key}' of what state_dict() of callback Keeping returned" for key in FOREIGN
    )
    again = Keeping(None)
    assert built(tmp_path, again).resume() == 2
    assert set(again.state) == set(DATA)


def test_a_state_that_is_none_of_it_data_is_left_out_as_a_whole(tmp_path: Path) -> None:
    (message,) = warned(built(tmp_path, Keeping(print)))
    assert message.startswith("all of what state_dict() of callback Keeping returned is not kept in the checkpoint: a ")
    again = Keeping("untouched")
    assert built(tmp_path, again).resume() == 2
    assert again.state == "untouched"


def test_a_callback_that_reads_what_was_left_out_is_told_how_to_go_on(tmp_path: Path) -> None:
    class Reading(Keeping):
        def load_state_dict(self, state: Any) -> None:
            self.state = state["rule"]

    warned(built(tmp_path, Reading({"best": 1.0, **FOREIGN})))
    with pytest.raises(
        CheckpointError, match=r"callback Reading: .* reads 'rule', which .* it has: best.*get\('rule'\)"
    ):
        built(tmp_path, Reading(None)).resume()


def test_an_error_of_its_own_stays_what_it_is(tmp_path: Path) -> None:
    class Failing(Keeping):
        def load_state_dict(self, state: Any) -> None:
            {}["elsewhere"] if "elsewhere" not in state else {}[next(iter(state))]

    built(tmp_path, Failing({"elsewhere": 1})).run()
    with pytest.raises(KeyError, match="elsewhere"):
        built(tmp_path, Failing(None)).resume()


def test_a_checkpoint_that_holds_plain_states_is_read(tmp_path: Path) -> None:
    """As those were that are written of callbacks alone, and by earlier releases."""
    engine = built(tmp_path, callback := Keeping(None))
    engine.load_state_dict({**engine.state_dict(), "callbacks": {"Keeping": {"a": [1, {"b": torch.ones(2)}]}}})
    assert_same(callback.state, {"a": [1, {"b": torch.ones(2)}]})


def test_numbers_that_are_added_are_kept_as_those_of_a_training_step(tmp_path: Path) -> None:
    weight = torch.ones(2, requires_grad=True)
    added = {"mean": np.mean([0.1, 0.2]), "seconds": 1.7e9 + 0.25, "count": 3, "norm": weight.sum(), "a": np.ones(2)}
    engine = built(tmp_path, Adding(added), seen := Written())
    engine.run()
    expected = {key: torch.as_tensor(value).detach() for key, value in added.items()}
    for shown in (engine.last_metrics["p"], dict(seen.records[-1].metrics)):
        assert_same({key: shown[key] for key in added}, expected)
        assert not shown["norm"].requires_grad
    again = built(tmp_path, Written())
    again.resume()
    assert_same(again.last_metrics, engine.last_metrics)


def test_an_array_that_is_used_again_does_not_change_what_was_measured() -> None:
    array = np.zeros(2)
    metric = as_metric(array)
    array += 1
    assert not metric.any()


@pytest.mark.parametrize("value", ["text", None, 10**400, {"a": 1}, [1, 2], np.array(["a"])])
def test_what_is_no_number_is_added_as_it_is(value: Any) -> None:
    assert as_metric(value) is value


def test_a_metric_that_is_no_data_is_named_with_who_added_it(tmp_path: Path) -> None:
    engine = built(tmp_path, Callback(), Adding({"mean": np.float64(1.5), **FOREIGN}), Callback(), Written())
    assert [message.partition(" is not kept in the checkpoint")[0] for message in warned(engine)] == sorted(
        f"the metric '{key}' of problem 'p', which callback Adding added," for key in FOREIGN
    )
    again = built(tmp_path, Written())
    again.resume()
    assert set(again.last_metrics["p"]) == {"loss", "mean"}


def test_the_best_are_kept_whatever_the_others_hold(tmp_path: Path) -> None:
    engine = scripted([3.0, 2.0], Keeping(FOREIGN), Adding(FOREIGN), best := KeepBest("score"), run_dir=str(tmp_path))
    assert len(warned(engine)) == len(FOREIGN) * (1 + len(engine.problems))
    assert best.kept == [(2.0, 2 * EVERY)]
    assert all(path.is_file() for path in best.files(engine))
