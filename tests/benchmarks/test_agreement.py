"""What the benchmarks compare is the same: every workload's trajectories agree, at sizes for tests, in float64.

The other libraries need not be installed: where they are not, that is what is recorded.
"""

from __future__ import annotations

import pytest
import torch
from suite.agreement import DOUBLE, distance, travelled
from suite.case import HAND, OURS, Row, Setting, UnavailableError
from suite.measure import Examiner
from suite.peers import PEERS, versions
from suite.workloads import LARGE, WORKLOADS

pytestmark = pytest.mark.filterwarnings("ignore:.*the weight decay of AdamW moves:multilevel.NumericsWarning")


def rows(setting: Setting, names: tuple[str, ...]) -> list[Row]:
    return [row for name in names for row in WORKLOADS[name](setting)]


DOUBLES = rows(Setting(dtype=torch.float64, tiny=True), tuple(WORKLOADS))
REDUCED = rows(Setting(tiny=True, large=True), LARGE)


@pytest.mark.parametrize("row", DOUBLES, ids=lambda row: row.name)
def test_the_library_follows_the_loop_written_by_hand(row: Row) -> None:
    expected = travelled(row.runs[HAND])
    for start, end in expected:
        assert 0 < (end - start).norm() < float("inf")
    assert distance(expected, travelled(row.runs[OURS])) <= DOUBLE


@pytest.mark.parametrize("row", REDUCED, ids=lambda row: row.name)
@pytest.mark.parametrize("name", [HAND, OURS])
def test_large_sizes_run_in_the_precision_that_is_timed(row: Row, name: str) -> None:
    for start, end in travelled(row.runs[name]):
        assert 0 < (end - start).norm() < float("inf")


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_that_is_not_there_is_recorded_in_every_row(peer: str) -> None:
    for row in DOUBLES:
        if peer in versions():
            continue  # the benchmark itself runs it
        with pytest.raises(UnavailableError, match="not installed"):
            row.runs[peer]()


def test_what_is_unavailable_is_recorded_with_its_reason() -> None:
    def absent() -> None:
        raise UnavailableError("not installed")

    row = Row("W0", "absent", {HAND: DOUBLES[0].runs[HAND], "betty-ml": absent}, 1e-6)
    result = Examiner(row, row, torch.device("cpu")).examined("betty-ml")
    assert (result.status, result.reason) == ("skipped", "not installed")


def test_an_implementation_that_ends_elsewhere_is_not_timed() -> None:
    row, other = DOUBLES[0], DOUBLES[1]
    wrong = Row("W0", "wrong", {HAND: row.runs[HAND], OURS: other.runs[OURS]}, 1e-6)
    result = Examiner(wrong, wrong, torch.device("cpu")).examined(OURS)
    assert result.status == "differs"
    assert "from the hand-written trajectory" in str(result.reason)


def test_an_implementation_that_raises_is_recorded() -> None:
    def broken() -> None:
        raise KeyError("params")

    row = Row("W0", "broken", {HAND: DOUBLES[0].runs[HAND], OURS: broken}, 1e-6)
    result = Examiner(row, row, torch.device("cpu")).examined(OURS)
    assert (result.status, result.reason) == ("failed", "KeyError: 'params'")
