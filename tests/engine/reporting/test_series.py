"""A line stands for every value it is drawn from, and hides none that is not finite."""

from __future__ import annotations

import math

import pytest

from multilevel.engine.reporting.series import is_logarithmic, pooled

NAN, INF = math.nan, math.inf


def test_one_run_is_its_own_line_without_a_band():
    line = pooled([{1: 3.0, 2: 4.0}])
    assert (line.steps, line.means, line.band_steps, line.lost) == ([1, 2], [3.0, 4.0], [], [])


def test_several_runs_are_their_mean_in_their_range():
    line = pooled([{1: 1.0, 2: 4.0}, {1: 3.0, 2: 4.0}])
    assert (line.means, line.low, line.high) == ([2.0, 4.0], [1.0, 4.0], [3.0, 4.0])


def test_the_mean_ends_where_a_run_does_and_the_band_goes_on():
    line = pooled([{1: 1.0, 2: 1.0}, {1: 3.0}])
    assert (line.steps, line.means) == ([1], [2.0])
    assert (line.band_steps, line.low, line.high) == ([1, 2], [1.0, 1.0], [3.0, 1.0])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_is_a_gap_and_is_marked(bad):
    line = pooled([{1: 1.0, 2: bad, 3: 1.0}, {1: 1.0, 2: 5.0, 3: 2.0}])
    assert math.isnan(line.means[1])
    assert line.lost == [2]
    assert (line.low[1], line.high[1]) == (5.0, 5.0)
    assert all(math.isfinite(value) for value in line.values())


def test_points_between_gaps_are_known():
    assert pooled([{1: 1.0, 2: NAN, 3: 3.0, 4: NAN, 5: 5.0, 6: 6.0}]).alone() == [(1, 1.0), (3, 3.0)]
    assert pooled([{1: 1.0}]).alone() == [(1, 1.0)]


@pytest.mark.parametrize("count", [399, 400, 401, 12345])
def test_a_long_run_takes_few_points_that_still_span_every_value(count):
    line = pooled([{step: math.sin(step) for step in range(count)}], most=400)
    assert len(line.steps) <= 400
    assert max(line.values()) == max(math.sin(step) for step in range(count))
    assert min(line.values()) == min(math.sin(step) for step in range(count))


def test_means_of_values_near_the_largest_float_do_not_overflow():
    assert pooled([{1: 1.7e308}, {1: 1.7e308}]).means == [1.7e308]


def test_an_axis_is_logarithmic_beyond_two_decades_of_positive_values():
    assert is_logarithmic([1.0, 101.0])
    for values in ([], [1.0], [1.0, 99.0], [0.0, 1e9], [-1.0, 1e9]):
        assert not is_logarithmic(values)
