"""Output that nobody reads any more, or that a full disk takes no more of, ends no work."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm
from typer.testing import CliRunner

from multilevel import Engine, EngineConfig, LoggerWarning
from multilevel.engine.callbacks import ProgressBar, Timing
from multilevel.engine.checkpoints.folder import CheckpointFolder
from multilevel.engine.cli import app
from multilevel.engine.interruption import Interrupted, Interruption
from multilevel.engine.loggers.console import Console
from multilevel.engine.streams import Lasting, standard_error

from ..givens import Given, square
from .toy import write_toy

Break = Callable[[str], None]
GONE, FULL = OSError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device")


class Refusing(io.RawIOBase):
    """A file that takes nothing."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        raise self.error


class Validated(Engine):
    """Has a metric to show."""

    def validation(self) -> dict[str, float]:
        return {"distance": 1.0}


@pytest.fixture(params=[GONE, FULL], ids=["gone", "full"])
def refused(request: pytest.FixtureRequest) -> OSError:
    error: OSError = request.param
    return error


@pytest.fixture
def break_(refused: OSError, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Breaks ``stdout`` or ``stderr``, as Python opens them; called in a test, after pytest has put its own there."""

    def break_(name: str) -> None:
        stream = io.TextIOWrapper(io.BufferedWriter(Refusing(refused)), encoding="utf-8", line_buffering=True)
        monkeypatch.setattr(sys, name, stream)

    return break_


@pytest.fixture(autouse=True)
def _an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_toy(tmp_path)
    code = path.with_name("code.py")
    talking = "    def training_step(self, batch):\n        print('mine')\n        if self.bomb"
    code.write_text(code.read_text().replace("    def training_step(self, batch):\n        if self.bomb", talking))


def call(*arguments: str) -> int:
    """The exit code of a command that writes to the streams as they are."""
    return app(list(arguments), prog_name="multilevel", standalone_mode=False) or 0


def weights(folder: str) -> torch.Tensor:
    found: torch.Tensor = torch.load(f"{folder}/final.pt", weights_only=True)["upper"]["value"]
    return found


@pytest.mark.parametrize("broken", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids="+".join)
def test_a_run_ends_as_with_streams_that_work(broken: list[str], break_: Break) -> None:
    told = ["engine.seed=1", "engine.train_iters=20", "engine.checkpoint_every=5", "engine.loggers=[console]"]
    assert CliRunner().invoke(app, ["run", "toy.yaml", *told, "--run-dir", "whole"]).exit_code == 0
    for name in broken:
        break_(name)
    assert call("run", "toy.yaml", *told, "engine.timing=true", "--run-dir", "out") == 0
    assert torch.equal(weights("out"), weights("whole"))
    assert Path("out/report.json").read_text() == Path("whole/report.json").read_text()
    assert not Path("out/error.txt").exists()


@pytest.mark.filterwarnings("always::multilevel.CheckpointWarning")
def test_a_checkpoint_that_fails_while_the_log_is_full_too_ends_no_run(
    break_: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointFolder.save

    def full(self: CheckpointFolder, step: int, state: dict[str, Any]) -> Path:
        if step:
            raise FULL
        return save(self, step, state)

    monkeypatch.setattr(CheckpointFolder, "save", full)
    break_("stderr")
    told = ["engine.checkpoint_every=5", "--run-dir", "out"]
    assert call("run", "toy.yaml", "engine.train_iters=10", *told) == 0
    assert json.loads(Path("out/report.json").read_text())["steps"] == 10


@pytest.mark.slow
def test_a_sweep_trains_every_setting_whoever_reads(break_: Break, refused: OSError) -> None:
    if refused is FULL:
        break_("stderr")
    break_("stdout")
    told = ["engine.train_iters=2,3", "-j", "2", "--run-dir", "out"]
    assert call("sweep", "toy.yaml", *told) == 0
    assert len(list(Path("out").glob("*/report.json"))) == 2


def test_what_only_prints_has_failed_where_that_is_lost(
    break_: Break, refused: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    break_("stdout")
    assert call("check", "toy.yaml") == 1
    said = capsys.readouterr().err
    assert said == (
        "" if refused is GONE else "standard output cannot be written (No space left on device); some of it is lost\n"
    )


def test_a_command_puts_the_streams_back_and_leaves_nothing_for_the_end_of_the_process(break_: Break) -> None:
    break_("stdout")
    break_("stderr")
    before = sys.stdout, sys.stderr
    call("check", "toy.yaml")
    assert (sys.stdout, sys.stderr) == before
    sys.stdout.flush()
    sys.stderr.flush()


def test_a_disk_that_has_room_again_is_written_to_again() -> None:
    class Filling(io.BytesIO):
        full = False

        def write(self, data: Any, /) -> int:
            if self.full:
                raise FULL
            return super().write(data)

    disk = Filling()
    lasting = Lasting(disk)  # type: ignore[arg-type]
    stream = io.TextIOWrapper(io.BufferedWriter(lasting), line_buffering=True)
    for disk.full, line in ((False, "a"), (True, "b"), (False, "c")):
        print(line, file=stream)
    assert disk.getvalue() == b"a\nc\n"
    assert lasting.error is FULL


@pytest.mark.parametrize("callback", [ProgressBar(shown=True, interval=0), Timing()], ids=lambda c: type(c).__name__)
def test_what_a_callback_shows_ends_no_run_in_python_either(callback: Any, break_: Break) -> None:
    engine = Validated([Given("alone", square)], config=EngineConfig(train_iters=4, valid_step=2), callbacks=callback)
    break_("stderr")
    engine.run()
    assert engine.step_count == 4


@pytest.mark.filterwarnings("always::multilevel.LoggerWarning")
def test_the_console_logger_ends_no_run_in_python_either(break_: Break) -> None:
    engine = Engine([Given("alone", square)], config=EngineConfig(train_iters=4, log_step=1), callbacks=Console())
    break_("stderr")
    with pytest.warns(LoggerWarning, match="the run goes on"):
        engine.run()
    assert engine.step_count == 4


def test_a_line_is_written_above_the_bars_of_the_stream_it_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=1, file=standard_error(), bar_format="BAR") as bar:
        bar.write("line", file=sys.stderr)
    assert "\rline" in capsys.readouterr().err.replace("   ", "").replace("\r\r", "\r")


def test_a_signal_is_noted_where_standard_error_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(number: int, data: bytes) -> int:
        raise GONE

    monkeypatch.setattr(os, "write", gone)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interruption.check()
