"""``multilevel plot`` and ``multilevel report``: what they print, and how they exit."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from multilevel.engine.cli import app

from .folder import write_run, write_whole_run

pytest.importorskip("matplotlib")


def multilevel(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def test_plot_says_what_it_wrote(tmp_path):
    paths = [write_run(tmp_path / name) for name in ("a", "b")]
    assert multilevel("plot", paths[0]) == (0, f"wrote {tmp_path}/a/curves.png\n")
    wanted = tmp_path / "two.png"
    assert multilevel("plot", *paths, "-o", wanted, "--metric", "loss", "--metric", "accuracy") == (
        0,
        f"wrote {wanted}\n",
    )
    assert wanted.stat().st_size > 0


def test_report_says_what_it_wrote(tmp_path):
    path = write_whole_run(tmp_path / "a")
    assert multilevel("report", path) == (0, f"wrote {path}/report.html\n")
    assert multilevel("report", path, "-o", tmp_path / "x.html") == (0, f"wrote {tmp_path}/x.html\n")


@pytest.mark.parametrize("command", ["plot", "report"])
def test_no_such_run_is_bad_input(tmp_path, command):
    write_run(tmp_path / "digits")
    code, said = multilevel(command, tmp_path / "digitz")
    assert code == 2
    assert said.startswith(f"error: no folder {tmp_path}/digitz")
    assert f"did you mean '{tmp_path}/digits'?" in said


def test_a_metric_that_no_run_has_is_bad_input(tmp_path):
    code, said = multilevel("plot", write_run(tmp_path), "--metric", "los")
    assert (code, "did you mean 'loss'" in said) == (2, True)
    assert not Path(tmp_path / "curves.png").exists()
