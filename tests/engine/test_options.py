"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from multilevel.engine.cli import app

from .toy import write_toy


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "toy.yaml", "--run-dir", ""],
        ["run", "toy.yaml", "--seeds", "2", "--run-dir", ""],
        ["sweep", "toy.yaml", "engine.train_iters=1,2", "--run-dir", ""],
        ["resume", ""],
        ["audit", "toy.yaml", "--run-dir", ""],
        ["audit", "toy.yaml", "--png", ""],
        ["graph", "toy.yaml", "--png", ""],
        ["plot", ""],
        ["plot", "out", "-o", ""],
        ["report", ""],
        ["report", "out", "--output", ""],
    ],
    ids=" ".join,
)
def test_a_path_that_is_empty_is_refused_and_nothing_is_written(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "expected a path, got an empty text" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_current_folder_is_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    result = CliRunner().invoke(app, ["run", "toy.yaml", "engine.train_iters=1", "--run-dir", "."])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    "arguments", [["report", "out", "-o", "."], ["plot", "out", "-o", "."], ["graph", "toy.yaml", "--png", "."]]
)
def test_a_folder_is_no_file_to_write(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "expected a file, got the folder '.'" in result.stderr
