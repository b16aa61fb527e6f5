"""A run ends exactly when a computation by hand says so, at the bits of its best validation, however often resumed."""

from __future__ import annotations

import math
import random

import pytest
import torch

from multilevel import Callback, Engine, EngineConfig, ProblemError
from multilevel.engine.callbacks import EarlyStopping
from multilevel.hypergrad.errors import ConfigError, MultilevelError

from ...givens import Given, alone, square
from ..states import differences
from .scripted import EVERY, Record, cut, everything, improvements, scripted

NAN, INF = math.nan, math.inf


def random_script(seed: int) -> list[float | None]:
    """Values with exact differences, some of which are equal, infinite, not a number, or not there."""
    draw = random.Random(seed)
    odd = [NAN, INF, -INF, None]
    values = [draw.choice(odd) if draw.random() < 0.25 else draw.randrange(9) / 4 for _ in range(12)]
    return [1.0 if values[0] is None else values[0], *values[1:]]


def by_hand(values: list[float | None], mode: str, patience: int, min_delta: float) -> tuple[int | None, int | None]:
    """The positions of the validation that ends the run, and of the best one until then."""
    better = improvements(values, mode, min_delta)
    counted = [i for i, value in enumerate(values) if value is not None]
    ends = [
        i
        for i in counted
        if len([j for j in counted if max((b for b in better if b <= i), default=-1) < j <= i]) >= patience
    ]
    seen = values[: ends[0] + 1] if ends else values
    finite = [value for value in seen if value is not None and math.isfinite(value)]
    best = seen.index(min(finite) if mode == "min" else max(finite)) if finite else None
    return (ends[0] if ends else None), best


def at(position: int | None) -> int | None:
    """The engine step of a validation."""
    return None if position is None else (position + 1) * EVERY


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.0), (3, 0.25), (2, 0.5), (20, 0.0)])
@pytest.mark.parametrize("seed", range(4))
def test_it_stops_where_a_computation_by_hand_does(mode, patience, min_delta, seed):
    values = random_script(seed)
    stopping = EarlyStopping("score", mode, patience, min_delta)
    engine = scripted(values, stopping)
    engine.run()
    stopped, best = by_hand(values, mode, patience, min_delta)
    assert stopping.stopped_step == at(stopped)
    assert engine.step_count == (at(stopped) or engine.config.train_iters)
    assert stopping.best_step == at(best)
    assert stopping.best == (values[best] if best is not None else None)


@pytest.mark.parametrize(
    ("values", "mode", "stopped"),
    [
        ([3, 2, 1, 1, 1], "min", 10),
        ([3, 2, 1, 1, 0], "min", None),
        ([1, 2, 2, 2], "max", 8),
        ([1, NAN, INF, 2], "max", 6),
        ([NAN, NAN, 1, 0], "min", 4),
        ([1, 2, None, None, 0, 1, 2], "min", 14),
    ],
)
def test_small_scripts(values, mode, stopped):
    stopping = EarlyStopping("score", mode, patience=2)
    scripted(values, stopping).run()
    assert stopping.stopped_step == stopped


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0, 2.0, 2.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
def test_the_best_parameters_and_buffers_return_bit_for_bit(values):
    record, stopping = Record(), EarlyStopping("score", patience=3)
    engine = scripted(values, record, stopping)
    engine.run()
    assert stopping.best_step == (values.index(1.0) + 1) * EVERY
    assert not differences(everything(engine), record.states[stopping.best_step])
    assert scalars_of(engine) == {"score": 1.0, "other": stopping.best_step}


def scalars_of(engine: Engine) -> dict[str, float]:
    return {name: float(value) for name, value in engine.last_validation.items()}


def test_a_small_gain_is_returned_to_though_it_does_not_count_as_an_improvement():
    record, stopping = Record(), EarlyStopping("score", patience=2, min_delta=1.0)
    engine = scripted([3.0, 2.5, 2.75, 0.0], record, stopping)
    engine.run()
    assert (stopping.best, stopping.best_step, stopping.stopped_step) == (2.5, 4, 6)
    assert not differences(everything(engine), record.states[4])


def test_small_gains_count_together():
    stopping = EarlyStopping("score", patience=2, min_delta=1.0)
    scripted([3.0, 2.25, 1.5, 0.75, 0.0, 0.0], stopping).run()
    assert stopping.stopped_step is None


def test_they_are_left_alone_where_that_is_asked_for():
    record, stopping = Record(), EarlyStopping("score", patience=3, restore=False)
    engine = scripted([3.0, 1.0, 2.0], record, stopping)
    engine.run()
    assert not differences(everything(engine), record.states[3 * EVERY])
    assert scalars_of(engine)["score"] == 2.0
    assert not stopping.state_dict()["weights"]


def test_optimizers_and_counters_stay_where_the_run_went():
    values = [3.0, 1.0, 2.0]
    stopped = scripted(values, EarlyStopping("score"))
    stopped.run()
    free = scripted(values)
    free.run()
    for name, problem in stopped.problems.items():
        other = free.problems[name]
        assert problem.count == other.count
        assert not differences(problem.optimizer.state_dict(), other.optimizer.state_dict())


@pytest.mark.parametrize("steps", range(0, 13))
def test_a_run_in_two_parts_decides_the_same_and_ends_at_the_same_bits(steps, tmp_path):
    values = [3.0, 1.0, NAN, 2.0, 1.5, 0.0]
    whole, stopping = (scripted(values, callback := EarlyStopping("score", patience=3)), callback)
    whole.run()
    assert stopping.stopped_step == 10
    state = cut(scripted(values, EarlyStopping("score", patience=3)), steps, tmp_path)
    torch.manual_seed(99)
    resumed, again = (scripted(values, callback := EarlyStopping("score", patience=3)), callback)
    resumed.load_state_dict(state)
    resumed.run()
    assert not differences(everything(resumed), everything(whole))
    assert not differences(again.state_dict(), stopping.state_dict())
    assert (resumed.step_count, scalars_of(resumed)) == (whole.step_count, scalars_of(whole))


def test_a_run_that_was_ended_goes_on_with_more_patience(tmp_path):
    values = [1.0, 2.0, 3.0, 4.0, 0.0, 5.0]
    state = cut(scripted(values, EarlyStopping("score", patience=2)), 12, tmp_path)
    assert state["progress"]["should_stop"]
    resumed, patient = (scripted(values, callback := EarlyStopping("score", patience=4)), callback)
    resumed.load_state_dict(state)
    resumed.run()
    free, stopping = (scripted(values, callback := EarlyStopping("score", patience=4)), callback)
    free.run()
    assert (patient.best, patient.stopped_step, resumed.step_count) == (0.0, None, 12)
    assert not differences(everything(resumed), everything(free))
    assert not differences(patient.state_dict(), stopping.state_dict())


def test_the_recorded_inner_loop_of_other_parameters_is_forgotten():
    engine = scripted([1.0, 2.0, 3.0], EarlyStopping("score"), method="unroll")
    engine.run()
    with pytest.raises(MultilevelError, match="recorded inner loop is empty"):
        engine.hypergradient("upper")


def test_whoever_is_behind_it_finds_the_best_parameters_at_the_end():
    seen = {}

    class Last(Callback):
        def on_run_end(self, engine):
            seen.update(everything(engine))

    record = Record()
    settings = {"metric": "score", "patience": 2}
    engine = scripted([1.0, 2.0, 3.0], record, Last(), early_stopping=settings)
    engine.run()
    assert not differences(seen, record.states[EVERY])


def test_a_metric_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ProblemError, match=r"'scores'; did you mean 'score'\? metrics: other, score"):
        scripted([1.0], EarlyStopping("scores")).run()


def test_a_metric_that_is_no_number_is_refused():
    engine = scripted([1.0], EarlyStopping("score"))
    engine.validation = lambda: {"score": torch.ones(2)}
    with pytest.raises(ProblemError, match=r"must be a single number, got Tensor of shape \(2,\)"):
        engine.run()


def test_a_run_that_never_validates_is_refused_at_its_start():
    for config, words in (({}, "valid_step is 0"), ({"valid_step": 1}, "nothing is validated")):
        problem = Given("only", square)
        engine = alone(problem, **config)
        engine.callbacks.callbacks.append(EarlyStopping("loss"))
        with pytest.raises(ConfigError, match=words):
            engine.run()
        assert problem.count == 0


def test_a_validation_step_is_a_validation():
    class Measured(Given):
        def validation_step(self, batch):
            return square(self, batch)

    stopping = EarlyStopping("only/loss", "max", patience=2)
    Engine(
        [Measured("only", square)],
        config=EngineConfig(train_iters=9, valid_step=1, device="cpu"),
        callbacks=[stopping],
    ).run()
    assert (stopping.best_step, stopping.stopped_step) == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "least"}, "mode: expected 'min' or 'max', got 'least'"),
        ({"patience": 0}, "patience: expected at least 1, got 0"),
        ({"min_delta": -1.0}, "min_delta: expected at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        EarlyStopping("score", **arguments)
