"""Other options for optimizers and schedulers when a run is gone on with: they hold from there on, wherever it goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from multilevel.configs.loader import load
from multilevel.engine.engine import Engine

from .changing import LR, SGD, built, group, newest, resumed, started, value, write

pytestmark = pytest.mark.filterwarnings("ignore:.*the weight decay of AdamW moves:multilevel.NumericsWarning")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write()


def by_hand(folder: str, **options: Any) -> Engine:
    """An engine that has gone on from a folder, with other options of its lower's optimizer, set as in torch."""
    engine = built(folder)
    engine.resume()
    engine["lower"].optimizer.param_groups[0].update(options)
    return engine


@pytest.mark.parametrize(
    ("optimizer", "option", "as_text"),
    [
        (SGD, {"lr": 0.2}, "lr=0.2"),
        (SGD, {"momentum": 0.9}, "momentum=0.9"),
        (f"{SGD}, momentum: 0.5", {"momentum": 0.1, "weight_decay": 0.3}, "momentum=0.1 weight_decay=0.3"),
        ("torch.optim.Adam, lr: 0.3", {"betas": (0.5, 0.9)}, "betas=[0.5,0.9]"),
        ("torch.optim.AdamW, lr: 0.3", {"lr": 0.01, "eps": 0.1}, "lr=0.01 eps=0.1"),
    ],
)
def test_an_option_of_an_optimizer_is_what_setting_it_by_hand_would_be(optimizer, option, as_text):
    write(optimizer)
    started()
    shutil.copytree("out", "hand")
    result = resumed(*(f"problems.lower.optimizer.{part}" for part in as_text.split()))
    assert "from here on" in result.stdout

    engine = by_hand("hand", **option)
    while engine.step_count < 40:
        engine.step()
    assert value(newest()) == engine["lower"].module.value.item()
    started(steps=40, folder="whole")
    assert value(newest()) != value(newest("whole")), "the option makes a difference"
    assert {key: group(newest())[key] for key in option} == option
    written = load("out/config.yaml").experiment.problems["lower"].optimizer
    assert written is not None
    for key, there in option.items():
        assert written.kwargs[key] == (list(there) if isinstance(there, tuple) else there)


@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        ("StepLR, step_size: 7, gamma: 0.5", [f"{LR}=0.2"]),
        ("StepLR, step_size: 7, gamma: 0.5", ["problems.lower.scheduler.gamma=0.9"]),
        ("MultiStepLR, milestones: [5, 60]", ["problems.lower.scheduler.milestones=[9,30]"]),
        ("CosineAnnealingLR, T_max: 100, eta_min: 0.01", [f"{LR}=0.2", "problems.lower.scheduler.T_max=150"]),
        ("LinearLR, total_iters: 60", [f"{LR}=0.2"]),
        ("ExponentialLR, gamma: 0.99", ["problems.lower.scheduler.gamma=0.98"]),
        ("OneCycleLR, max_lr: 0.5, total_steps: 200", ["problems.lower.scheduler.max_lr=0.3"]),
    ],
)
def test_a_schedule_goes_on_as_if_it_had_always_had_its_new_settings(scheduler, settings):
    write(f"{SGD}, momentum: 0.5", scheduler)
    started()
    resumed(*settings)
    started(*settings, steps=40, folder="whole")
    assert group(newest()) == group(newest("whole"))
    schedule = newest()["problems"]["lower"]["training"]["scheduler"]
    assert schedule == newest("whole")["problems"]["lower"]["training"]["scheduler"]
    started(steps=40, folder="plain")
    assert group(newest("plain"))["lr"] != group(newest())["lr"], "the settings make a difference"


def test_beside_a_scheduler_that_watches_a_metric_the_rate_is_the_one_that_is_given():
    write(scheduler="ReduceLROnPlateau, patience: 2, threshold: 1000, factor: 0.5")
    started()
    reduced = group(newest())["lr"]
    assert reduced < 0.5 / 4
    resumed(f"{LR}=0.4", "problems.lower.scheduler.patience=1000")
    assert group(newest())["lr"] == 0.4
    resumed("problems.lower.scheduler.patience=2", steps=64)
    assert group(newest())["lr"] < 0.4 / 4


@pytest.mark.parametrize("mode", ["roll_back: true", "non_finite: restore, log_step: 1000"])
def test_where_a_run_may_return_to_it_has_the_new_options_too(mode):
    write(scheduler="StepLR, step_size: 7, gamma: 0.5", engine=f", {mode}")
    started(steps=23)  # between two steps of the upper, or two copies
    resumed("problems.lower.scheduler.gamma=1.0", "problems.lower.optimizer.momentum=0.25", steps=41)
    assert (group(newest())["lr"], group(newest())["momentum"]) == (0.5, 0.25)
    progress = newest()["progress"]
    kept = (
        progress["roll_back"]["upper"]["places"]["lower"]["training"]
        if progress["roll_back"]
        else progress["guard"]["good"]["states"]["lower"]
    )
    (options,) = kept["optimizer"]["param_groups"]
    assert (options["lr"], options["momentum"]) == (0.5, 0.25)
