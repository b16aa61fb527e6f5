"""The command line: what it prints, writes, and returns to the shell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from multilevel._version import __version__
from multilevel.configs.loader import load, shipped
from multilevel.engine.callbacks import ProgressBar
from multilevel.engine.cli import app
from multilevel.engine.runs import run as runs
from multilevel.hypergrad.registry import available

from .toy import YAML, write_toy


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_help_answers_at_once_without_importing_torch():
    code = (
        "import sys\nfrom multilevel.__main__ import main\nsys.argv = ['multilevel', '--help']\n"
        "try:\n    main()\nexcept SystemExit as exit:\n    assert not exit.code\n"
        "heavy = {'torch', 'pydantic', 'networkx', 'yaml', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert all(command in done.stdout for command in ("run", "resume", "sweep", "check", "graph", "list", "schema"))
    assert min(seconds) < 0.5


def test_python_m_multilevel():
    done = subprocess.run([sys.executable, "-m", "multilevel", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


def test_run_writes_a_folder_and_prints_the_final_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ProgressBar", partial(ProgressBar, shown=True))  # as on a terminal
    write_toy(tmp_path)
    result = call("run", "toy.yaml", "problems.lower.optimizer.lr=0.4", "--run-dir", "out")
    assert result.exit_code == 0, result.output
    assert "distance" in result.stdout
    assert "60 steps" in result.stdout
    assert "60/60" in result.stderr
    out = tmp_path / "out"
    assert load(out / "config.yaml").experiment.problems["lower"].optimizer.kwargs == {"lr": 0.4}
    weights = torch.load(out / "final.pt", weights_only=True)
    assert {name: list(state) for name, state in weights.items()} == {"upper": ["value"], "lower": ["value"]}
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "validation" in r] == [20, 40, 60]
    assert {r["problem"] for r in records if "problem" in r} == {"upper", "lower"}
    report = json.loads((out / "report.json").read_text())
    assert report["distance"] == pytest.approx((weights["lower"]["value"] - 1).abs().item())
    assert report["steps"] == 60
    timing = json.loads((out / "timing.json").read_text())["problems"]
    assert timing["lower"]["steps"] == 60
    assert timing["lower"]["forward"] > 0
    assert (out / "picture.txt").read_text() == "picture"
    assert not (out / "error.txt").exists()


def test_a_run_folder_repeats_its_run(tmp_path):
    write_toy(tmp_path)
    assert call("run", "toy.yaml", "engine.seed=3", "engine.train_iters=7", "--quiet", "--run-dir", "a").exit_code == 0
    assert call("run", "a/config.yaml", "--quiet", "--run-dir", "b").exit_code == 0
    first, second = (torch.load(tmp_path / run / "final.pt", weights_only=True) for run in ("a", "b"))
    assert torch.equal(first["upper"]["value"], second["upper"]["value"])
    assert (tmp_path / "a" / "config.yaml").read_text() == (tmp_path / "b" / "config.yaml").read_text()


def test_without_a_folder_given_each_run_makes_its_own(tmp_path):
    write_toy(tmp_path)
    for _ in range(2):
        assert call("run", "toy.yaml", "engine.train_iters=1", "--quiet").exit_code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("toy-") for folder in folders)


def test_quiet_shows_no_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ProgressBar", partial(ProgressBar, shown=True))
    write_toy(tmp_path)
    assert call("run", "toy.yaml", "--quiet").stderr == ""


def test_several_seeds_give_a_mean_and_a_spread(tmp_path):
    write_toy(tmp_path)
    noise = "problems.lower.data={class: code.py:noise, count: 9, scale: 0.1}"
    result = call("run", "toy.yaml", noise, "engine.seed=5", "--seeds", "2", "-j", "2", "--run-dir", "out")
    assert result.exit_code == 0, result.output
    assert "mean ± std of 2 seeds" in result.stdout
    reports = [json.loads((tmp_path / "out" / f"seed{s}" / "report.json").read_text()) for s in (5, 6)]
    values = torch.tensor([report["distance"] for report in reports])
    assert len(set(values.tolist())) == 2
    assert f"{values.mean():.4g} ± {values.std():.2g}" in result.stdout
    assert load(tmp_path / "out" / "seed6" / "config.yaml").experiment.engine.seed == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such"], ["no experiment is named 'no-such'"]),
        (["run", "missing.yaml"], ["no file missing.yaml"]),
        (["run", "toy.yaml", "problems.lower.config.type=cgg"], ["problem 'lower'", "did you mean 'cg'"]),
        (["run", "toy.yaml", "problems.lower.optimizer.lrr=1"], ["did you mean 'lr'"]),
        (["run", "toy.yaml", "edges=[[upper, lower], [lower, upper]]"], ["toy.yaml: ", "cycle"]),
        (["run", "toy.yaml", "problems.lower.class=os.path.join"], ["--allow-import os"]),
        (["check", "toy.yaml", "problems.lower.module.valu=1"], ["did you mean 'value'"]),
        (["graph", "toy.yaml", "--format", "mermad"], ["did you mean 'mermaid'"]),
        (["graph", "toy.yaml", "edges=[[upper, lower], [lower, upper]]"], ["toy.yaml: ", "cycle"]),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(tmp_path, arguments, words):
    write_toy(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "runs").exists(), "bad input leaves no run folder behind"


@pytest.mark.parametrize("arguments", [["run"], ["rnu"], ["run", "toy.yaml", "--seeds", "0"]])
def test_bad_usage_is_exit_code_2_as_well(arguments):
    assert call(*arguments).exit_code == 2


def test_a_failing_run_is_exit_code_1_and_leaves_its_traceback(tmp_path):
    write_toy(tmp_path)
    result = call("run", "toy.yaml", "problems.lower.options.bomb=5", "--quiet", "--run-dir", "out")
    assert result.exit_code == 1
    assert "boom" in result.stderr
    assert "Traceback" not in result.stderr
    assert "training_step" in (tmp_path / "out" / "error.txt").read_text()
    assert (tmp_path / "out" / "config.yaml").exists()


def test_a_failing_report_does_not_lose_the_weights(tmp_path):
    write_toy(tmp_path)
    result = call("run", "toy.yaml", "engine.options.goal=-1", "--quiet", "--run-dir", "out")
    assert result.exit_code == 1
    assert "no picture" in result.stderr
    assert (tmp_path / "out" / "final.pt").exists()


def test_warnings_are_one_line_each(tmp_path):
    write_toy(tmp_path)
    code = (tmp_path / "code.py").read_text()
    (tmp_path / "code.py").write_text(
        f"import warnings\nwarnings.simplefilter('always')\nwarnings.warn('mind')\n{code}"
    )
    result = call("check", "toy.yaml")
    assert result.exit_code == 0, result.output
    assert result.stderr == "UserWarning: mind\n"


def test_seeds_go_on_after_one_that_failed_and_say_which(tmp_path):
    write_toy(tmp_path)
    code = tmp_path / "code.py"
    code.write_text(
        code.read_text().replace("self.count == self.bomb", "torch.initial_seed() == 1 and self.count == 5")
    )
    result = call("run", "toy.yaml", "problems.lower.options.bomb=5", "--seeds", "2", "-j", "2", "--run-dir", "out")
    assert result.exit_code == 1
    assert "mean of 1 seed" in result.stdout
    assert "out/seed1: RuntimeError: boom" in result.stdout
    assert "failed: 1 of 2 runs" in result.stderr


def test_an_interrupted_run_is_exit_code_130(tmp_path):
    write_toy(tmp_path)
    result = call("run", "toy.yaml", "problems.lower.options.bomb=13", "engine.log_step=5", "--run-dir", "out")
    assert result.exit_code == 130
    assert "interrupted" in result.output
    assert (tmp_path / "out" / "metrics.jsonl").read_text().count('"lower"') == 2


def test_a_folder_with_a_run_in_it_is_not_written_over(tmp_path):
    write_toy(tmp_path)
    assert call("run", "toy.yaml", "--quiet", "--run-dir", "out").exit_code == 0
    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    result = call("run", "toy.yaml", "--quiet", "--run-dir", "out")
    assert result.exit_code == 2
    assert "there is a run in it already" in result.stderr
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before


def test_what_an_audit_found_can_be_kept_beside_a_run(tmp_path):
    write_toy(tmp_path)
    watched = ("engine.checkpoint_every=2", "engine.loggers=[csv]")
    result = call("audit", "toy.yaml", *watched, "--steps", "4", "--method", "exact", "--json", "--run-dir", "out")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == json.loads(result.stdout)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.json"], "an audit is no run"


def test_an_experiment_that_saves_itself_can_be_checked_without_a_folder(tmp_path):
    write_toy(tmp_path)
    watched = ("engine.checkpoint_every=2", "engine.loggers=[csv]")
    assert call("check", "toy.yaml", *watched).exit_code == 0
    assert not (tmp_path / "runs").exists()


def test_check_builds_everything_and_trains_nothing(tmp_path):
    write_toy(tmp_path)
    result = call("check", "toy.yaml", "problems.lower.config.gradient_accumulation=3")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.endswith("SGD")}
    assert rows == {"upper": ["upper", "-", "1/6", "1", "SGD"], "lower": ["lower", "cg", "1", "1", "SGD"]}
    assert "⇅ lower" in result.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


@pytest.mark.filterwarnings("ignore:.*depends on no parameter of 'other':multilevel.NumericsWarning")
def test_the_pace_of_check_is_that_of_the_run(tmp_path):
    middle = YAML[YAML.index("  upper:") : YAML.index("  lower:")].replace("  upper:", "  other:")
    yaml = YAML.replace("edges:", f"{middle}    config: {{unroll_steps: 3}}\nedges:\n- [other, lower]")
    write_toy(tmp_path, yaml)
    result = call("check", "toy.yaml")
    assert result.exit_code == 0, result.output
    pace = {line.split()[0]: line.split()[2] for line in result.stdout.splitlines() if line.endswith("SGD")}
    assert pace == {"lower": "1", "upper": "1/2", "other": "1/2"}
    assert call("run", "toy.yaml", "--quiet", "--run-dir", "out").exit_code == 0
    last = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert {r["problem"]: r["count"] for r in last if "problem" in r} == {"lower": 60, "upper": 30, "other": 30}


def test_graph_needs_no_code(tmp_path):
    path = write_toy(tmp_path)
    (tmp_path / "code.py").unlink()
    assert "⇅ lower" in call("graph", str(path)).stdout
    assert "upper <--> lower" in call("graph", str(path), "--format", "mermaid").stdout


def test_graph_draws_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    write_toy(tmp_path)
    assert call("graph", "toy.yaml", "--png", "graph.png").exit_code == 0
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_list_names_experiments_and_methods():
    result = call("list")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in [*shipped(), *available()])


def test_schema_is_json():
    result = call("schema")
    assert result.exit_code == 0
    assert "problems" in json.loads(result.stdout)["properties"]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_experiment_checks(name):
    result = call("check", name)
    assert result.exit_code == 0, result.output
