"""Settings make callbacks, in an order in which each can do its work."""

from __future__ import annotations

import pytest

from multilevel import Callback, CheckpointWarning, ConfigError, Engine, EngineConfig
from multilevel.engine.callbacks import EarlyStopping, KeepBest, Monitor, Timing, configured

from ...givens import Given, alone, square

WATCHED = {"metric": "score"}


def test_settings_go_around_what_is_given():
    config = EngineConfig(valid_step=1, monitor=True, timing=True, early_stopping=WATCHED, keep_best=WATCHED)
    given = [Callback(), Callback()]
    callbacks = configured(config, given)
    assert [type(callback) for callback in callbacks] == [Monitor, EarlyStopping, Callback, Callback, KeepBest, Timing]
    assert callbacks[2:4] == given


def test_one_needs_no_list_and_loggers_come_behind():
    one, logger = Callback(), Callback()
    assert configured(EngineConfig(), one, [logger]) == [one, logger]
    assert configured(EngineConfig(), (c for c in [one]), [logger]) == [one, logger]


def test_nothing_is_asked_for_by_default():
    assert configured(EngineConfig()) == []


def test_a_run_goes_on_without_a_logger_that_is_left_out(tmp_path):
    settings = {"run_dir": str(tmp_path), "checkpoint_every": 2}
    alone(Given("p", square), train_iters=2, loggers=["csv"], **settings).run()
    again = alone(Given("p", square), train_iters=4, **settings)
    with pytest.warns(CheckpointWarning, match="the state of a callback Csv, .* the run goes on without"):
        assert again.resume() == 2
    again.run()
    assert again.step_count == 4


def test_what_ended_a_run_cannot_be_left_out_of_it(tmp_path):
    class Scored(Given):
        def validation_step(self, batch):
            return {"score": 1.0}

    settings = {"run_dir": str(tmp_path), "checkpoint_every": 2, "train_iters": 9, "valid_step": 1}
    stopping = {"metric": "p/score", "patience": 1}
    alone(Scored("p", square), early_stopping=stopping, **settings).run()
    with pytest.raises(ConfigError, match=r"EarlyStopping had ended, .* give it more patience"):
        alone(Scored("p", square), **settings).resume()


def test_a_hook_that_nobody_calls_is_refused_with_the_one_it_may_mean():
    class Misspelt(Callback):
        def on_stepend(self, engine):
            """Nothing would call it."""

    class Inherits(Misspelt):
        """Has it as well."""

    for callback in (Misspelt(), Inherits()):
        with pytest.raises(ConfigError, match=r"no hook is named 'on_stepend', .* did you mean 'on_step_end'\?"):
            Engine([Given("p", square)], callbacks=callback)


def test_hooks_of_another_library_are_its_own_matter():
    class Theirs:
        def on_epoch_end(self):
            """Called by whoever it is for."""

    class Both(Callback, Theirs):
        on_time = True

    Engine([Given("p", square)], callbacks=Both())
