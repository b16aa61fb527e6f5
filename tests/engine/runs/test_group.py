"""Commands that train are one process, whatever a launcher says."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from multilevel.engine.cli import app

from ..toy import write_toy

TRAINING = [["run", "toy.yaml"], ["run", "toy.yaml", "--seeds", "2"], ["sweep", "toy.yaml", "x=1,2"], ["resume", "out"]]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_one_of_several_processes_is_refused_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: WORLD_SIZE=2: expected one process")
    assert "--seeds" in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("count", ["1", "", "many"])
def test_a_launcher_of_one_process_and_a_variable_of_another_meaning_are_not(
    count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    assert CliRunner().invoke(app, ["run", "toy.yaml", "engine.train_iters=1"]).exit_code == 0


def test_what_trains_nothing_may_be_asked_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert CliRunner().invoke(app, ["check", "toy.yaml"]).exit_code == 0
