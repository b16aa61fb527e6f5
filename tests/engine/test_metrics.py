"""Metrics as numbers and texts, and what the progress bar shows of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from multilevel.engine.callbacks.progress import ProgressBar
from multilevel.engine.metrics import brief, plain, scalars

from .loggers.fakes import fake_engine, run


def test_plain_is_json_whatever_the_metric():
    value = {"a": torch.tensor(2), "b": np.float32(0.5), "c": float("nan"), "d": [torch.tensor([1.0, float("inf")])],
             "e": None, "f": "text", "g": object, 3: True}  # fmt: skip
    written = json.loads(json.dumps(plain(value), allow_nan=False))
    assert written == {
        "a": 2,
        "b": 0.5,
        "c": "nan",
        "d": [[1.0, "inf"]],
        "e": None,
        "f": "text",
        "g": str(object),
        "3": True,
    }


def test_scalars_are_the_single_numbers():
    metrics = {"a": torch.tensor([0.25]), "b": 3, "c": torch.ones(2), "d": "x", "e": np.float64(2.5), "f": True}
    assert scalars(metrics) == {"a": 0.25, "b": 3.0, "e": 2.5}
    assert scalars(None) == {}
    assert brief(metrics) == "a 0.25, b 3, e 2.5"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_beyond_all_floats_is_infinite(sign):
    assert scalars({"a": sign * 10**400}) == {"a": sign * math.inf}
    assert brief({"a": sign * 10**400}) == f"a {sign * math.inf}"


@pytest.mark.parametrize(("interval", "fetched"), [(1e9, 1 + 5), (0.0, 26 + 5)])
def test_the_bar_fetches_a_loss_only_when_it_is_drawn(interval, fetched, capsys):
    """Which it is at each of the five validations too, and at the end."""
    losses = run(fake_engine(lower=-1), ProgressBar("toy", interval, shown=True))
    assert sum(loss.fetched for loss in losses) == fetched
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "toy" in last
    assert "25/25" in last
    assert "lower 6.25" in last


def test_the_bar_prints_validations_and_closes_on_errors(capsys):
    engine, bar = fake_engine(lower=-1), ProgressBar("toy", shown=True)
    bar.on_run_start(engine)
    bar.on_validation(engine, {"accuracy": torch.tensor(0.5)})
    bar.on_exception(engine, KeyboardInterrupt())
    bar.on_step_end(engine)
    assert "step 0: accuracy 0.5" in capsys.readouterr().err
