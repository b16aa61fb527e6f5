"""The page of a run in a real browser: nothing overflows, nothing is faint, nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multilevel.engine.reporting import commands

from .browser import find_browser, load, measure
from .folder import EVIL, PIXEL, of_problem, of_validation, usual, write_whole_run

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium here")

WIDE, PHONE = 1200, 390
SCREENS = [(WIDE, False), (WIDE, True), (PHONE, False), (PHONE, True)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything, and names that would run if they were markup."""
    folder = write_whole_run(
        tmp_path_factory.mktemp("run") / "a-folder-with-a-name-that-is-rather-long-20260101-000000",
        [*usual(), of_problem("classifier", 40, **{EVIL: 1e-12}), of_validation(40, huge=-1.25e300, **{EVIL: 1.0})],
        description=EVIL,
        report={"test accuracy": 0.9875, "a metric with a name that is longer than others": -1.25e300, EVIL: 1.0},
        error=f"Traceback (most recent call last):\n{' ' * 400}\nValueError: {'x' * 300} {EVIL}\n",
    )
    (folder / "weights.png").write_bytes(PIXEL)
    return commands.report(folder)


@pytest.fixture(scope="module")
def seen(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, bool], dict[str, Any]]:
    """What a reader sees of it, by the width of the screen and whether it is dark."""
    known: dict[tuple[int, bool], dict[str, Any]] = {}

    def look(width: int, dark: bool) -> dict[str, Any]:
        if (width, dark) not in known:
            folder = tmp_path_factory.mktemp("chromium")
            known[width, dark] = measure(report, width=width, dark=dark, folder=folder)
        return known[width, dark]

    return look


each_screen = pytest.mark.parametrize(("width", "dark"), SCREENS, ids=["wide", "wide dark", "phone", "phone dark"])


@each_screen
def test_the_page_fits_the_screen(seen, width, dark):
    found = seen(width, dark)
    assert found["width"] == width
    assert found["needed"] <= width
    assert found["tooWide"] == []


@each_screen
def test_every_text_stands_out_from_what_is_behind_it(seen, width, dark):
    assert seen(width, dark)["dark"] is dark
    assert seen(width, dark)["faint"] == []


@each_screen
def test_the_drawings_are_there_and_their_labels_are_whole_and_apart(seen, width, dark):
    found = seen(width, dark)
    assert len(found["svgs"]) == 1 + 7
    assert all(across > 150 and down > 80 for across, down in found["svgs"])
    assert found["cutOff"] == []
    assert found["overlapping"] == []
    assert found["smallest"] >= 7
    assert found["images"] == [True]


@each_screen
def test_nothing_is_fetched_and_nothing_runs(seen, width, dark):
    found = seen(width, dark)
    assert found["resources"] == []
    assert (found["scripts"], found["ran"]) == (0, 0)
    assert EVIL in found["text"]


def test_those_who_listen_to_the_page_get_everything(seen):
    found = seen(WIDE, False)
    assert found["h1"] == ["demo"]
    assert found["h2"] == ["Error", "Result", "Graph", "Curves", "Timing", "Audit", "Pictures", "Settings"]
    assert (found["unlabelled"], found["headers"], found["tables"]) == (0, 0, 3)
    assert len(set(found["ids"])) == len(found["ids"])


def test_the_browser_has_nothing_to_complain_about(report, tmp_path):
    document, console = load(report, tmp_path)
    assert "<h1>demo</h1>" in document
    assert console == []
