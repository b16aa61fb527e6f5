"""Settings that change when a run is gone on with: each takes effect, or is refused before anything is trained."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from multilevel.engine.runs.comparison import save
from multilevel.engine.runs.plan import Member, Plan, outcome

from ..toy import YAML
from .changing import LR, SCHEDULER, built, call, group, newest, resumed, started, value, write

pytestmark = pytest.mark.filterwarnings("ignore:.*the weight decay of AdamW moves:multilevel.NumericsWarning")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write()


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("[!.]*") if path.is_file()}


def test_a_change_counts_from_the_settings_of_the_checkpoint():
    started()
    resumed(f"{LR}=0.2", steps=64)
    for later in Path("out/checkpoints").glob("step-*.pt"):
        if int(later.stem[5:]) > 24:
            later.unlink()  # killed before the first one under the new settings
    Path("out/report.json").unlink()
    assert group(newest())["lr"] == 0.5
    assert f"{LR}: 0.5 so far, 0.2 from here on" in resumed(steps=64).stdout
    assert group(newest())["lr"] == 0.2
    assert "from here on" not in resumed(steps=72).stdout
    assert group(newest())["lr"] == 0.2


def test_an_optimizer_that_the_class_makes_takes_up_its_options():
    Path("toy.yaml").write_text(
        re.sub(
            r"class: code.py:Lower\n.*\n.*\n",
            "class: code.py:Tuned\n",
            YAML.replace("engine: {", "engine: {seed: 3, checkpoint_every: 8, "),
        )
    )
    started()
    resumed("problems.lower.options.lr=0.2")
    assert group(newest())["lr"] == pytest.approx(0.2 * 0.1 ** (40 // 10))
    before = contents("out")
    result = call("resume", "out", "problems.lower.options.adaptive=true", "engine.train_iters=80")
    assert result.exit_code == 2
    assert "makes Adam with StepLR" in result.stderr
    assert "that of SGD with StepLR" in result.stderr
    assert contents("out") == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["engine.seed=5"], "engine.seed: 3 there, 5 here"),
        (["problems.upper.module.value=5"], "problems.upper.module.value: 3 there, 5 here"),
        (["problems.lower.module.class=code.py:Other"], "problems.lower.module.class: 'code.py:Scalar' there"),
        (["problems.lower.optimizer.class=torch.optim.RAdam"], "'torch.optim.AdamW' there, 'torch.optim.RAdam' here"),
        (["problems.lower.optimizer.amsgrad=true"], "needs 'max_exp_avg_sq' in its state"),
        ([f"problems.lower.scheduler={{class: {SCHEDULER}.StepLR, step_size: 3}}"], "scheduler.class"),
        (["problems.lower.scheduler=null"], "OneCycleLR' there, nothing here"),
        ([f"{LR}=0.2"], "changes nothing, for the scheduler OneCycleLR sets it"),
    ],
)  # fmt: skip
def test_what_could_not_take_effect_is_refused_and_nothing_is_touched(settings, words):
    write("torch.optim.AdamW, lr: 0.5", "OneCycleLR, max_lr: 0.5, total_steps: 200")
    started()
    before = contents("out")
    result = call("resume", "out", *settings, "engine.train_iters=40")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert contents("out") == before
    resumed()


def test_before_the_first_checkpoint_anything_may_change():
    started("engine.checkpoint_every=0")
    Path("out/report.json").unlink()
    resumed("engine.seed=5", "problems.upper.module.value=4", "engine.checkpoint_every=8")
    assert call("run", "out/config.yaml", "--run-dir", "whole").exit_code == 0
    assert value(newest()) == value(newest("whole"))


def test_of_many_runs_none_starts_under_a_setting_that_one_refuses():
    plan = Plan("toy", tuple(Member(f"seed{seed}", {}, seed) for seed in (3, 4)))
    for member in plan.members:
        started(f"engine.seed={member.seed}", steps=8, folder=f"out/{member.folder}")
    save(plan, [outcome(Path("out"), member) for member in plan.members], Path("out"))
    before = contents("out")
    result = call("resume", "out", "engine.seed=4", "engine.train_iters=16")
    assert result.exit_code == 2
    assert "engine.seed: 3 there, 4 here" in result.stderr
    assert contents("out") == before


def test_a_diverged_run_goes_on_under_a_lower_rate_as_its_error_advises():
    torch.set_default_dtype(torch.float32)  # there the range ends sooner, and parameters return from its end in time
    settings = (f"{LR}=12", "engine.train_iters=200", "engine.log_step=200")
    result = call("run", "toy.yaml", *settings, "--run-dir", "out")
    assert result.exit_code == 1
    assert "Lower the learning rate" in result.stderr
    assert "go on from the last one" in result.stderr
    where = int(re.search(r"go on from step (\d+) with: multilevel resume out", result.stderr)[1])  # type: ignore[index]
    assert newest()["progress"]["step_count"] == where
    resumed(f"{LR}=0.5", "problems.upper.optimizer.lr=0.4", steps=320)
    assert (group(newest())["lr"], group(newest(), "upper")["lr"]) == (0.5, 0.4)
    assert abs(value(newest()) - 1) < 0.1, "it converges from there"
    assert math.isfinite(value(newest(), "upper"))


def test_in_python_a_resumed_engine_has_the_options_of_its_checkpoint_as_in_torch():
    started()
    engine = built("out", f"{LR}=0.2")
    assert engine.resume() == 24
    assert engine["lower"].optimizer.param_groups[0]["lr"] == 0.5
    assert torch.equal(engine["lower"].module.value.detach(), torch.tensor([value(newest())]))
