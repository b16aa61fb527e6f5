"""Results are kept, merged and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from suite import machine, report
from suite.case import HAND, OURS
from suite.counting import Passes
from suite.results import Measured, Results, RowResult, merged, read

HAND_RUN = Measured("timed", milliseconds=2.0, ratio=1.0, quartiles=(1.0, 1.0), peak_bytes=2**20)
OUR_RUN = Measured(
    "timed", milliseconds=2.1, ratio=1.05, quartiles=(1.0, 1.1), peak_bytes=2**21, passes=Passes(4, 1, 6)
)


def results(*workloads: str, torch_version: str = "2.0") -> Results:
    runs = {HAND: HAND_RUN, OURS: OUR_RUN, "betty-ml": Measured("skipped", "not installed")}
    facts = {"device": "a processor", "processor": "a processor", "torch": torch_version, "peers": {}}
    return Results(facts, 3, {"import torch": 1.0}, [RowResult(w, "cg 5", 0.25, dict(runs)) for w in workloads])


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    saved = results("W1")
    saved.write(tmp_path / "r.json")
    assert report.block([read(tmp_path / "r.json")]) == report.block([saved])


def test_new_rows_replace_those_of_their_workload() -> None:
    both = merged(results("W1", "W2"), results("W1"), ["W1", "W2"])
    assert [row.workload for row in both.rows] == ["W1", "W2"]


def test_rows_of_another_version_are_dropped() -> None:
    other = merged(results("W1", "W2"), results("W1", torch_version="2.1"), ["W1", "W2"])
    assert [row.workload for row in other.rows] == ["W1"]


def test_the_tables_say_ratio_memory_work_error_and_why_not() -> None:
    text = report.block([results("W1")])
    for line in (
        "| W1 cg 5 | 2 ms | **1.05 (1.00-1.10)** |",
        "- `betty-ml`: not installed (W1 cg 5)",
        "| W1 cg 5 | 1 | 2 |",
        "| W1 cg 5 |  | 4 / 1 / 6 | 2.5e-01 |  |  |",
        "| `import torch` | 1.00 |",
    ):
        assert line in text


def test_page_and_picture_are_written(tmp_path: Path) -> None:
    results("W1").write(tmp_path / "r.json")
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    page.write_text(f"before {report.BEGIN} old {report.END} after")
    report.write(tmp_path, page, picture)
    assert picture.stat().st_size > 0
    assert page.read_text().startswith("before ")
    assert page.read_text().endswith(" after")
    assert " old " not in page.read_text()


def test_the_page_has_a_place_for_them() -> None:
    text = report.PAGE.read_text()
    assert report.replaced(text, "new").count("new") >= 1


def test_facts_are_of_the_machine_and_not_of_whose_it_is() -> None:
    assert set(machine.facts(torch.device("cpu"))) == {
        "device",
        "processor",
        "cores",
        "memory (GiB)",
        "system",
        "python",
        "torch",
        "threads",
        "multilevel",
        "peers",
    }


@pytest.mark.parametrize("large", [False, True])
def test_a_file_is_named_after_the_device(large: bool) -> None:
    name = machine.file_name(torch.device("cpu"), large)
    assert name.startswith("cpu-")
    assert name.endswith("-large.json" if large else ".json")
