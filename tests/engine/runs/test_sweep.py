"""Many runs: which ones a command means, what becomes of them, and what is said in the end."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from multilevel.configs.loader import load
from multilevel.engine.cli import app
from multilevel.engine.runs.children import Children, Task, environment
from multilevel.engine.runs.comparison import results, spread
from multilevel.engine.runs.plan import Member, Outcome, Plan
from multilevel.engine.runs.progress import steps_taken
from multilevel.engine.runs.run import Terms
from multilevel.engine.runs.sweep import Asked, plan_seeds, plan_sweep, split_values
from multilevel.hypergrad.errors import ConfigError

from ..toy import write_toy

LR = "problems.lower.optimizer.lr"
BOMB = "problems.lower.options.bomb"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def planned(*overrides: str, seeds: int | None = None) -> Plan:
    return plan_sweep(Asked("toy.yaml", overrides, seeds), Terms())[0]


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("a.b=0.1,0.01", ["0.1", "0.01"]),
        ("a.b=0.1, 0.01", ["0.1", "0.01"]),
        ("a.b=1", ["1"]),
        ("a.b=", [""]),
        ("a.b=[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("a.b={class: x, args: [1, 2]}", ["{class: x, args: [1, 2]}"]),
        ("a.b='x, y',z", ["'x, y'", "z"]),
        ('a.b={k: "}, ]"},2', ['{k: "}, ]"}', "2"]),
        ("a.b=it's,fine", ["it's", "fine"]),
    ],
)
def test_commas_split_values_but_not_inside_brackets_and_quotes(override, values):
    assert list(split_values(override)) == [f"a.b={value}" for value in values]


def test_the_runs_are_all_combinations_and_each_has_a_folder_that_says_which():
    plan = planned(f"{LR}=0.1,0.2", "problems.upper.optimizer.lr=1", "problems.lower.config.type=cg,{name: darts}")
    assert [member.folder for member in plan.members] == [
        "lr=0.1,type=cg", "lr=0.1,type=name_darts", "lr=0.2,type=cg", "lr=0.2,type=name_darts",
    ]  # fmt: skip
    assert plan.members[1].settings == {LR: 0.1, "problems.lower.config.type": {"name": "darts"}}
    assert plan.members[1].label == "lr=0.1, type={name: darts}"


def test_a_key_is_as_short_as_tells_it_from_the_others():
    plan = planned(f"{LR}=0.1,0.2", "problems.upper.optimizer.lr=1,2")
    assert list(plan.keys.values()) == ["lower.optimizer.lr", "upper.optimizer.lr"]


def test_folders_differ_where_names_would_not():
    plan = planned("description=a/b,a:b", seeds=2)
    assert [m.folder for m in plan.members] == [
        "description=a_b/seed0", "description=a_b/seed1", "description=a_b-2/seed0", "description=a_b-2/seed1",
    ]  # fmt: skip


def test_seeds_count_upward_from_that_of_the_setting():
    _, loaded = plan_seeds(Asked("toy.yaml", ("engine.seed=5",), 3), Terms())
    assert [x.experiment.engine.seed for x in loaded] == [5, 6, 7]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{LR}=0.1"], "no setting has several values"),
        ([f"{LR}=0.1,,0.2"], "a value is missing"),
        ([f"{LR}=0.1,0.1"], "a value is there twice"),
        ([f"{LR}=0.1,0.2", f"{LR}=0.3"], "is given twice"),
        (["problems.lower.optimizer.lrr=0.1,0.2"], "did you mean 'lr'"),
        ([f"{LR}=0.1,0.2", "engine.train_iters=-1"], "override 'engine.train_iters=-1'"),
        ([f"{LR}=0.1,fast"], "(with lr=fast)"),
        (["engine.seed=1,2", "--seeds", "2"], "give one of the two"),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(tmp_path, overrides, words):
    result = call("sweep", "toy.yaml", *overrides)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "runs").exists()


def test_jobs_without_several_runs_are_refused():
    assert "--seeds" in call("run", "toy.yaml", "-j", "2").stderr


CRASHES = """
import os, signal


class Crashing(Lower):
    def training_step(self, batch):
        if self.bomb < 0 and self.count == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch)
"""


def test_one_run_fails_another_is_killed_and_the_others_are_compared(tmp_path):
    code = tmp_path / "code.py"
    code.write_text(code.read_text() + CRASHES)
    crashing = "problems.lower.class=code.py:Crashing"
    result = call("sweep", "toy.yaml", f"{BOMB}=0,5,-1", crashing, "-j", "2", "--run-dir", "out", "--metric", "distanc")
    assert result.exit_code == 1, result.output
    assert "failed: 2 of 3 runs" in result.stderr
    assert "multilevel resume out" in result.stderr
    assert "Traceback" not in result.output
    assert "out/bomb=5: RuntimeError: boom" in result.stdout
    assert "out/bomb=-1: killed by SIGKILL" in result.stdout
    assert "[3/3]" in result.stdout
    assert "did you mean 'distance'" in result.stdout
    assert "training_step" in (tmp_path / "out" / "bomb=5" / "error.txt").read_text()

    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [run["status"] for run in record["runs"]] == ["finished", "failed", "failed"]
    report = json.loads((tmp_path / "out" / "bomb=0" / "report.json").read_text())
    assert record["summary"][0]["metrics"]["distance"] == {"mean": report["distance"], "std": None}
    with (tmp_path / "out" / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["status"] for line in lines] == ["finished", "failed", "failed"]
    assert float(lines[0]["distance"]) == report["distance"]

    # The cause is mended for one of the two: the others keep what they have.
    (tmp_path / "out" / "bomb=-1" / "code.py").write_text(code.read_text().replace("SIGKILL", "SIGCONT"))
    finished = (tmp_path / "out" / "bomb=0" / "metrics.jsonl").read_text()
    result = call("resume", "out", "-j", "2")
    assert result.exit_code == 1
    assert "1 of 3 runs are finished" in result.stdout
    assert "failed: 1 of 3 runs" in result.stderr
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [run["status"] for run in record["runs"]] == ["finished", "failed", "finished"]
    assert (tmp_path / "out" / "bomb=0" / "metrics.jsonl").read_text() == finished


@pytest.mark.slow
def test_what_runs_is_what_was_there_when_the_command_was_given(tmp_path):
    """The experiment's file and code may be edited while a sweep runs."""
    assert call("sweep", "toy.yaml", f"{LR}=0.4,0.5", "-j", "2", "--run-dir", "out").exit_code == 0
    assert load(tmp_path / "out" / "lr=0.4" / "config.yaml").experiment.problems["lower"].optimizer.kwargs["lr"] == 0.4
    assert (tmp_path / "out" / "lr=0.4" / "code.py").read_text() == (tmp_path / "code.py").read_text()
    result = call("resume", "out")
    assert result.exit_code == 0
    assert "all 2 runs are finished already" in result.stdout
    assert call("sweep", "toy.yaml", f"{LR}=0.4,0.5", "--run-dir", "out").exit_code == 2


def outcome(settings: dict[str, float], seed: int, **report: float) -> Outcome:
    return Outcome(Member("", settings, seed), "finished" if report else "failed", report, None)


def test_the_table_has_a_row_for_each_setting_with_mean_and_deviation_over_seeds():
    runs = [outcome({"a.lr": 1}, 0, loss=1.0), outcome({"a.lr": 1}, 1, loss=2.0), outcome({"a.lr": 2}, 0, loss=0.5)]
    runs.append(outcome({"a.lr": 2}, 1))
    plan = Plan("x", tuple(run.member for run in runs))
    rows = [line.split("  ") for line in results(plan, runs).splitlines()[2:]]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows == [["1", "2", f"1.5 ± {statistics.stdev([1, 2]):.2g}"], ["2", "1 of 2", "0.5"]]
    lines = results(replace(plan, metric="loss"), runs).splitlines()[2:]
    assert [line[0] for line in lines] == ["2", "1"], "sorted by the metric"


def test_the_spread_of_one_value_is_the_value_and_that_of_infinities_is_no_error():
    assert spread([0.5]) == "0.5"
    assert spread([]) == "-"
    assert spread([1.0, math.inf]) == "inf ± nan"


def test_cores_are_shared_out_unless_somebody_did(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert "OMP_NUM_THREADS" not in environment(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(2)["OMP_NUM_THREADS"] == "7"


def test_the_bar_reads_the_step_of_the_last_whole_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert steps_taken(file) == 0
    file.write_text('{"step": 3}\n{"step": 40}\n{"st')
    assert steps_taken(file) == 40
    file.write_text("nonsense\n")
    assert steps_taken(file) == 0


def test_a_child_runs_the_same_library_whatever_lies_in_the_current_folder(tmp_path):
    """``python -m`` would put the current folder first, and with it a ``code.py`` before the standard library's."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('the wrong one')\n")
    children = Children(1)
    (ended,) = children.run([Task(("list",), tmp_path / "output.txt")], lambda: None)
    assert ended.code == 0, ended.output
    assert "reweight-digits" in ended.output


def test_an_experiment_that_cannot_be_planned_says_why():
    with pytest.raises(ConfigError, match="no experiment is named"):
        plan_seeds(Asked("no-such", (), 2), Terms())
