"""The final metrics in a run's folder, also where something damaged them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from multilevel.engine.cli import app
from multilevel.engine.runs.final import read_report
from multilevel.hypergrad.errors import ConfigError

from ..toy import write_toy


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"loss": null}', "\xff"])
def test_a_damaged_report_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"report\.json: expected the final metrics"):
        read_report(path)


def test_a_damaged_report_is_one_message_and_its_advice_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)
    call = ["run", "toy.yaml", "engine.train_iters=4", "engine.checkpoint_every=2", "--run-dir", "my run"]
    assert CliRunner().invoke(app, call).exit_code == 0
    report = tmp_path / "my run" / "report.json"
    whole = report.read_text()
    report.write_text("")
    result = CliRunner().invoke(app, ["resume", "my run"])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert "multilevel resume 'my run'" in result.stderr
    report.unlink()
    assert CliRunner().invoke(app, ["resume", "my run"]).exit_code == 0
    assert report.read_text() == whole
