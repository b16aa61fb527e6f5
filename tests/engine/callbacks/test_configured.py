"""Settings make callbacks, in an order in which each can do its work."""

from __future__ import annotations

from multilevel import Callback, EngineConfig
from multilevel.engine.callbacks import EarlyStopping, KeepBest, Monitor, Timing, configured

WATCHED = {"metric": "score"}


def test_settings_go_around_what_is_given():
    config = EngineConfig(valid_step=1, monitor=True, timing=True, early_stopping=WATCHED, keep_best=WATCHED)
    given = [Callback(), Callback()]
    callbacks = configured(config, given)
    assert [type(callback) for callback in callbacks] == [Monitor, EarlyStopping, Callback, Callback, KeepBest, Timing]
    assert callbacks[2:4] == given


def test_nothing_is_asked_for_by_default():
    assert configured(EngineConfig()) == []
