"""Going on with a run: by ``resume``, by ``run --resume auto``, after signals, kills and failures."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from multilevel.configs.loader import load
from multilevel.engine import atomic
from multilevel.engine.cli import app
from multilevel.engine.runs import folder as run_folder

from ..toy import CODE

LEVELS = (
    CODE
    + """
import time


def batches(count=7, size=2):
    data = torch.utils.data.TensorDataset(torch.randn(count * size, 1, generator=torch.Generator().manual_seed(1)))
    return torch.utils.data.DataLoader(data, batch_size=size, shuffle=True)


class Slow(Lower):
    def __init__(self, name, *, seconds=0.0, **parts):
        super().__init__(name, **parts)
        self.seconds = seconds

    def training_step(self, batch):
        time.sleep(self.seconds)
        return super().training_step(batch[0].mean() + 0.01 * torch.randn(()))
"""
)
YAML = """\
engine: {train_iters: 40, valid_step: 10, log_step: 1, checkpoint_every: 8, keep: 99, seed: 3, class: levels.py:Toy}
problems:
  upper:
    class: levels.py:Upper
    module: {class: levels.py:Scalar, value: 3}
    optimizer: {class: torch.optim.Adam, lr: 0.1}
  lower:
    class: levels.py:Slow
    module: {class: levels.py:Scalar}
    optimizer: {class: torch.optim.SGD, lr: 0.3, momentum: 0.5}
    data: {class: levels.py:batches}
    config: {type: {name: cg}, unroll_steps: 3, gradient_accumulation: 2}
edges:
- [upper, lower]
"""
SLOW = "problems.lower.options.seconds=0.02"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)  # as in the processes that some tests start
    (tmp_path / "levels.py").write_text(LEVELS)
    (tmp_path / "toy.yaml").write_text(YAML)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, *(["--quiet"] if arguments[0] in ("run", "resume") else [])])


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "multilevel", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(file: Path) -> None:
    """Wait until a running process has written a file."""
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.01)


def checkpoint(folder: str, step: int) -> Path:
    return Path(folder) / "checkpoints" / f"step-{step:08d}.pt"


def end(folder: str) -> dict[str, Any]:
    """What a run ended with: weights, report, and the metrics of every step."""
    out = Path(folder)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {
            f"{problem}.{name}": tensor.tolist()
            for problem, state in torch.load(out / "final.pt", weights_only=True).items()
            for name, tensor in state.items()
        },
        "report": json.loads((out / "report.json").read_text()),
        "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
    }


def go_back(folder: str, step: int) -> None:
    """Make a finished run look as if it had been killed some time after a checkpoint."""
    out = Path(folder)
    (out / "report.json").unlink()
    (out / "final.pt").unlink()
    for later in out.glob("checkpoints/step-*.pt"):
        if int(later.stem[5:]) > step:
            later.unlink()


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGINT, 130)]
)
def test_a_stopped_run_says_the_command_that_goes_on_to_the_same_end(started, number, code):
    process = started("run", "toy.yaml", SLOW, "--run-dir", "my runs/it", "--allow-import", "json", "--quiet")
    wait_for(checkpoint("my runs/it", 8))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    last = errors.splitlines()[-1]
    step = int(last.partition("interrupted at step ")[2].partition(";")[0])
    assert 8 <= step < 40
    program, *words = shlex.split(last.partition("; go on with: ")[2])
    assert (program, *words) == ("multilevel", "resume", "my runs/it", "--allow-import", "json")
    assert not Path("my runs/it/report.json").exists()

    result = call(*words)
    assert result.exit_code == 0, result.output
    assert f"resumed at step {step} of 40" in result.stdout
    assert f"steps {step + 1} to 40" in result.stdout
    assert call("run", "toy.yaml", "--run-dir", "whole").exit_code == 0
    assert end("my runs/it") == end("whole")


@pytest.mark.slow
def test_a_killed_run_is_found_again_by_its_settings_and_ends_the_same(started):
    process = started("run", "toy.yaml", SLOW, "--quiet")
    wait_for(Path("runs"))
    (folder,) = Path("runs").iterdir()
    wait_for(checkpoint(str(folder), 16))
    process.kill()
    process.wait()
    result = call("run", "toy.yaml", SLOW, "--resume", "auto")
    assert result.exit_code == 0, result.output
    assert f"{folder}: resumed at step " in result.stdout
    assert list(Path("runs").iterdir()) == [folder]
    assert call("run", "toy.yaml", "--run-dir", "whole").exit_code == 0
    assert end(str(folder)) == end("whole")


def test_two_processes_do_not_write_into_one_folder(started):
    process = started("run", "toy.yaml", SLOW, "--run-dir", "out", "--quiet")
    wait_for(checkpoint("out", 0))
    result = call("resume", "out")
    assert result.exit_code == 2
    assert f"process {process.pid}" in result.stderr
    process.terminate()
    assert process.wait() == 143


def test_run_resume_auto_starts_goes_on_and_then_has_nothing_to_do():
    always = ("run", "toy.yaml", "--run-dir", "out", "--resume", "auto")
    result = call(*always)
    assert result.exit_code == 0, result.output
    assert "resumed" not in result.output
    whole = end("out")

    go_back("out", 24)
    result = call(*always)
    assert result.exit_code == 0, result.output
    assert "out: resumed at step 24 of 40" in result.stdout
    assert "distance" in result.stdout
    assert end("out") == whole

    result = call(*always)
    assert result.exit_code == 0
    assert "finished already" in result.stdout
    assert "distance" in result.stdout
    assert end("out") == whole


def test_run_resume_auto_refuses_other_settings_and_shows_them():
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    other = ("problems.lower.optimizer.lr=0.2", "problems.lower.options.bomb=0")
    result = call("run", "toy.yaml", *other, "--run-dir", "out", "--resume", "auto")
    assert result.exit_code == 2
    assert "problems.lower.optimizer.lr: 0.3 there, 0.2 here" in result.stderr
    assert "problems.lower.options.bomb: nothing there, 0 here" in result.stderr
    assert "multilevel resume out" in result.stderr


def test_without_a_folder_the_newest_unfinished_run_of_the_same_settings_goes_on():
    stamps = ("20250101-000000", "20250103-000000", "20250102-000000", "20250102-000000-2", "20250104-000000")
    folders = [f"runs/toy-{stamp}" for stamp in stamps]
    for folder in folders:
        other = ["problems.lower.optimizer.lr=0.2"] if folder == folders[-1] else []
        assert call("run", "toy.yaml", *other, "--run-dir", folder).exit_code == 0
        if folder != folders[1]:
            go_back(folder, 8)
    result = call("run", "toy.yaml", "--resume", "auto")
    assert result.exit_code == 0, result.output
    assert f"{folders[3]}: resumed at step 8" in result.stdout, "newer ones are finished, or have other settings"
    for folder in (folders[2], folders[0]):
        assert f"{folder}: resumed at" in call("run", "toy.yaml", "--resume", "auto").stdout
    assert "resumed" not in call("run", "toy.yaml", "--resume", "auto").stdout
    assert len(list(Path("runs").iterdir())) == len(folders) + 1


def test_a_finished_run_is_trained_longer_by_an_override_which_is_kept():
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    assert "finished already" in call("resume", "out").stdout
    result = call("resume", "out", "engine.train_iters=64")
    assert result.exit_code == 0, result.output
    assert "steps 41 to 64" in result.stdout
    assert load("out/config.yaml").experiment.engine.train_iters == 64
    assert call("run", "toy.yaml", "engine.train_iters=64", "--run-dir", "whole").exit_code == 0
    assert end("out")["weights"] == end("whole")["weights"]
    result = call("run", "toy.yaml", "engine.train_iters=64", "--run-dir", "out", "--resume", "auto")
    assert "finished already" in result.stdout


def test_a_finished_run_without_checkpoints_cannot_be_trained_longer():
    assert call("run", "toy.yaml", "engine.checkpoint_every=0", "--run-dir", "out").exit_code == 0
    before = end("out")
    result = call("resume", "out", "engine.train_iters=64")
    assert result.exit_code == 2
    assert "without a checkpoint" in result.stderr
    assert end("out") == before


def test_a_run_is_not_cut_shorter_than_it_is():
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    before = end("out")
    result = call("resume", "out", "engine.train_iters=10")
    assert result.exit_code == 2
    assert "step 40" in result.stderr
    assert end("out") == before


def test_a_run_without_a_checkpoint_starts_again_and_measures_nothing_twice():
    settings = ("engine.checkpoint_every=0", "--run-dir", "out")
    assert call("run", "toy.yaml", *settings).exit_code == 0
    whole = end("out")
    Path("out/report.json").unlink()
    result = call("resume", "out")
    assert result.exit_code == 0, result.output
    assert "no checkpoint yet: starting at step 0" in result.stdout
    assert end("out") == whole


def test_a_failed_run_says_how_to_go_on_and_does_once_the_cause_is_mended():
    result = call("run", "toy.yaml", "problems.lower.options.bomb=27", "--run-dir", "out")
    assert result.exit_code == 1
    assert "boom" in result.stderr
    assert "go on from step 24 with: multilevel resume out" in result.stderr
    assert Path("out/error.txt").exists()
    assert "boom" in call("resume", "out").stderr
    result = call("resume", "out", "problems.lower.options.bomb=0")
    assert result.exit_code == 0, result.output
    assert not Path("out/error.txt").exists()
    assert call("run", "toy.yaml", "--run-dir", "whole").exit_code == 0
    assert end("out") == end("whole")


def test_a_folder_may_be_moved():
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    whole = end("out")
    go_back("out", 16)
    Path("elsewhere").mkdir()
    Path("out").rename("elsewhere/it")
    assert "run_dir" not in Path("elsewhere/it/config.yaml").read_text()
    assert call("resume", "elsewhere/it").exit_code == 0
    assert end("elsewhere/it") == whole


def test_changed_code_is_taken_and_said():
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    go_back("out", 16)
    Path("levels.py").write_text(f"{LEVELS}\n# changed\n")
    result = call("run", "toy.yaml", "--run-dir", "out", "--resume", "auto")
    assert result.exit_code == 0, result.output
    assert "levels.py has changed since" in result.stdout
    assert Path("out/levels.py").read_text() == Path("levels.py").read_text()


def test_another_file_of_the_same_name_is_not_written_over():
    Path("out").mkdir()
    Path("out/levels.py").write_text("# somebody's own")
    result = call("run", "toy.yaml", "--run-dir", "out")
    assert result.exit_code == 2
    assert "has another levels.py than the one beside the experiment" in result.stderr
    assert Path("out/levels.py").read_text() == "# somebody's own"
    assert not Path("out/config.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume", "nowhere"], "there is no such folder"),
        (["resume", "."], "runs below it: out"),
        (["resume", "out", "problems.lower.optimizer.lrr=1"], "did you mean 'lr'"),
        (["resume", "out", "-j", "2"], "single run"),
        (["run", "toy.yaml", "--resume", "latest"], "expected 'auto'"),
        (["run", "toy.yaml", "--run-dir", "toy.yaml/out"], "cannot be written"),
        (["run", "toy.yaml", "--run-dir", "toy.yaml"], "found a file"),
    ],
)
def test_bad_input_is_exit_code_2(arguments, words):
    assert call("run", "toy.yaml", "--run-dir", "out").exit_code == 0
    before = end("out")
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert end("out") == before


def test_a_folder_on_a_full_disk_is_refused_before_training(monkeypatch):
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    result = call("run", "toy.yaml", "--run-dir", "out")
    assert result.exit_code == 2
    assert "cannot be written (No space left on device)" in result.stderr
    assert not Path("out/config.yaml").exists()


def test_weights_that_do_not_fit_on_the_disk_are_written_later(monkeypatch):
    def full(*arguments: object) -> None:
        raise RuntimeError("unexpected pos 3136 vs 3028")  # what torch says then

    with monkeypatch.context() as patched:
        patched.setattr(run_folder.torch, "save", partial(_only_for, ".final.pt", full, torch.save))
        result = call("run", "toy.yaml", "--run-dir", "out")
    assert result.exit_code == 1
    assert "is the disk full?" in result.stderr
    assert "go on with: multilevel resume out" in result.stderr
    result = call("resume", "out")
    assert result.exit_code == 0, result.output
    assert call("run", "toy.yaml", "--run-dir", "whole").exit_code == 0
    assert end("out") == end("whole")


def _only_for(name: str, special: Callable[..., None], usual: Callable[..., None], value: object, file: Any) -> None:
    (special if getattr(file, "name", "") == name else usual)(value, file)


@pytest.mark.slow
def test_seeds_go_on_where_they_were(started):
    several = ("run", "toy.yaml", SLOW, "--run-dir", "out", "--seeds")
    process = started(*several, "2")
    wait_for(checkpoint("out/seed3", 8))
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "interrupted; 0 of 2 runs are finished; go on with: multilevel resume out" in errors
    assert not checkpoint("out/seed4", 0).exists(), "no further one was started"
    result = call(*several, "2", "-j", "2", "--resume", "auto")
    assert result.exit_code == 0, result.output
    assert "mean ± std of 2 seeds" in result.stdout
    assert "resumed at step" in Path("out/seed3/output.txt").read_text()
    assert call("run", "toy.yaml", "--run-dir", "whole").exit_code == 0
    assert end("out/seed3") == end("whole")
    other = call(*several, "1", "--resume", "auto")
    assert other.exit_code == 2
    assert "only there: seed4" in other.stderr
