"""Numbers are written as people write them, and ticks are told apart."""

from __future__ import annotations

import pytest

from multilevel.engine.reporting.wording import counted, percent, power_label, short, spent, tick_label


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.91791, "0.9179"),
        (-0.25, "-0.25"),
        (81204.3, "81 204"),
        (-2.80492e-08, "-2.805·10⁻⁸"),
        (1e-8, "1·10⁻⁸"),
        (1.5e12, "1.5·10¹²"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_measured_numbers(value, expected):
    assert short(value).replace("\N{NARROW NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-") == expected


def test_counts():
    assert [counted(1, "step"), counted(2, "step"), counted(999)] == ["1 step", "2 steps", "999"]
    assert counted(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0"), (2e-5, "20 µs"), (0.0125, "12.5 ms"), (2.345, "2.35 s"), (75, "1 min 15 s"), (7380, "2 h 03 min")],
)
def test_durations(seconds, expected):
    assert spent(seconds) == expected


@pytest.mark.parametrize(("part", "expected"), [(0, "0 %"), (0.004, "0.4 %"), (0.5, "50 %"), (1, "100 %")])
def test_shares(part, expected):
    assert percent(part, 1) == expected
    assert percent(part, 0) == "0 %"


def test_powers():
    assert [power_label(value) for value in (1e-4, 1e-3, 1.0, 1e4, 1e5)] == ["10⁻⁴", "0.001", "1", "10000", "10⁵"]


@pytest.mark.parametrize(
    "ticks",
    [
        [0.0, 0.25, 0.5, 0.75, 1.0],
        [40.0, 50.0, 60.0],
        [0.82, 0.84, 0.86],
        [-5e-8, 0.0, 5e-8],
        [20000.0, 40000.0],
        [1e6, 1e6 + 0.01, 1e6 + 0.02],
        [-1e300, -5e299, 0.0, 5e299, 1e300],
    ],
    ids=str,
)
def test_no_two_ticks_look_the_same(ticks):
    labels = [tick_label(tick, ticks) for tick in ticks]
    assert len(set(labels)) == len(labels)
    assert not any("e" in label for label in labels)


def test_ticks_are_short():
    assert [tick_label(tick, [0.1, 0.2, 0.3]) for tick in (0.1, 0.2, 0.30000000000000004)] == ["0.1", "0.2", "0.3"]
