"""The table of times adds up, and says what hypergradients cost."""

from __future__ import annotations

from multilevel import EngineConfig
from multilevel.engine.callbacks import Timing
from multilevel.engine.callbacks.timing import timing_table
from multilevel.engine.times import Times

from ...givens import hierarchy

TABLE = """\
problem  steps  per step   data  forward  backward  sweep  update  of the run
-------  -----  ---------  ----  -------  --------  -----  ------  ----------
upper    50     200.00 ms  5%    10%      10%       70%    5%      25%
lower    1,000  30.00 ms   10%   50%      20%       0%     20%     75%
40.0 s, 18% of it on hypergradients (sweep)"""


def test_the_table_is_the_one_computed_by_hand():
    engine = hierarchy({"upper": ["lower"]})
    engine.times.update(
        upper=Times(steps=50, data=0.5, forward=1.0, backward=1.0, sweep=7.0, update=0.5),
        lower=Times(steps=1000, data=3.0, forward=15.0, backward=6.0, sweep=0.0, update=6.0),
    )
    assert timing_table(engine) == TABLE


def test_compiling_is_a_part_of_its_own_where_anything_was_compiled():
    engine = hierarchy({"upper": ["lower"]})
    engine.times["lower"] = Times(steps=10, forward=1.0, compile=3.0)
    lines = [line.split() for line in timing_table(engine).splitlines()]
    assert lines[0][-5:] == ["update", "compile", "of", "the", "run"]
    assert lines[3][-3:] == ["0%", "75%", "100%"]


def test_a_run_that_has_not_begun_took_no_time():
    lines = timing_table(hierarchy({"upper": ["lower"]})).splitlines()
    assert lines[2].split() == ["upper", "0", "0.00", "ms", *"------"]
    assert lines[-1] == "0.0 s, - of it on hypergradients (sweep)"


def test_long_runs_are_told_in_hours_and_minutes():
    engine = hierarchy({"upper": ["lower"]})
    for seconds, words in ((59.44, "59.4 s"), (61.4, "1 min 1 s"), (3599.6, "1 h 0 min"), (40000.0, "11 h 6 min")):
        engine.times["lower"] = Times(steps=1, forward=seconds)
        assert timing_table(engine).splitlines()[-1].startswith(f"{words}, ")


def test_it_is_printed_at_the_end_where_the_settings_ask_for_it(capsys):
    engine = hierarchy({"upper": ["lower"]})
    engine.config = EngineConfig(train_iters=3, device="cpu")
    engine.callbacks.callbacks.append(Timing())
    engine.run()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == timing_table(engine) + "\n"
    assert [line.split()[1] for line in printed.err.splitlines()[2:4]] == ["3", "3"]
