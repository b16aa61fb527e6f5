"""The engines of the recipes: what their reports compare is comparable, and comparing leaves the run as it was."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multilevel import Engine
from multilevel.configs.loader import load
from multilevel.engine.build import build
from multilevel.engine.recipes import regularization
from multilevel.engine.recipes.regularization import RegularizationEngine
from multilevel.engine.recipes.reweighting import ReweightingEngine
from multilevel.engine.recipes.weights_picture import WeightedSamples, save_weights_picture
from multilevel.hypergrad.errors import ConfigError
from multilevel.problems.recipes import breast_cancer, digits
from multilevel.problems.recipes.regularization import binary_loss
from multilevel.problems.recipes.reweighting import Plain

SHORT = {
    "reweight-digits": ["engine.train_iters=30", "engine.valid_step=0", "problems.classifier.config.warmup_steps=5"],
    "l2-breast-cancer": ["engine.train_iters=30", "engine.valid_step=0", "problems.classifier.config.unroll_steps=10"],
}


def ran(name: str, *overrides: str) -> Engine:
    engine = build(load(name, [*SHORT[name], "engine.device=cpu", *overrides]))
    engine.run()
    return engine


def snapshot(engine: Engine) -> list[torch.Tensor]:
    generator = getattr(engine["classifier"].train_data_loader, "generator", None)
    parts = [t for p in engine.problems.values() for t in p.module.state_dict().values()]
    buffers = [s["momentum_buffer"] for s in engine["classifier"].optimizer.state.values()]
    order = [generator.get_state()] if generator is not None else []
    return [t.clone() for t in (*parts, *buffers, *order)]


@pytest.mark.parametrize("name", SHORT)
def test_a_report_leaves_the_run_as_it_was(name, tmp_path):
    engine = ran(name)
    before = snapshot(engine)
    engine.report(tmp_path)
    after = snapshot(engine)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert engine["classifier"].count == 30


def test_plain_training_starts_alike_and_sees_the_same_batches(tmp_path):
    engine = build(load("reweight-digits", SHORT["reweight-digits"]))
    twin = build(load("reweight-digits", SHORT["reweight-digits"]))
    engine.run()
    reported = engine.report(tmp_path)["accuracy (plain)"]
    net, optimizer = twin["classifier"].module, twin["classifier"].optimizer
    loader = twin["classifier"].train_data_loader
    batches = [batch for _ in range(3) for batch in loader]  # 11 batches an epoch
    for inputs, labels in batches[:30]:
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    inputs, labels = digits.held_out()[0]
    expected = (net(inputs).argmax(dim=1) == labels).double().mean().item()
    assert reported == pytest.approx(expected, abs=1e-12)


def test_the_picture_of_the_weights_is_written(tmp_path):
    report = ran("reweight-digits").report(tmp_path)
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")
    assert set(report) == {
        "accuracy (reweighted)",
        "accuracy (plain)",
        "accuracy (clean samples only)",
        "mean weight (right label)",
        "mean weight (wrong label)",
    }


def test_without_wrong_labels_there_is_nothing_to_colour_red(tmp_path):
    samples = WeightedSamples(torch.zeros(5), torch.ones(5), torch.zeros(5, dtype=torch.bool))
    save_weights_picture(samples, torch.ones_like, tmp_path / "weights.svg")
    assert "<svg" in (tmp_path / "weights.svg").read_text()


def test_validation_measures_the_test_and_the_clean_samples():
    engine = ran("reweight-digits")
    metrics = engine.validate()
    assert set(metrics) == {"test accuracy", "clean accuracy"}
    assert all(0 <= value <= 1 for value in metrics.values())


def test_without_a_penalty_the_model_is_trained_as_long_from_the_same_start(tmp_path):
    reported = ran("l2-breast-cancer").report(tmp_path)
    twin = build(load("l2-breast-cancer", SHORT["l2-breast-cancer"]))
    net, optimizer = twin["classifier"].module, twin["classifier"].optimizer
    for _ in range(30):
        optimizer.zero_grad()
        binary_loss(net, breast_cancer.train(seed=0)[0]).backward()
        optimizer.step()
    assert reported["test loss (none)"] == pytest.approx(twin.validate()["test loss"], abs=1e-12)


def test_the_uniform_strength_is_the_one_that_validates_best(tmp_path, monkeypatch):
    engine = ran("l2-breast-cancer")
    measured = {0.0: (0.5, 9.0, 0.1), 0.1: (0.3, 2.0, 0.6), 1.0: (0.2, 3.0, 0.5)}
    monkeypatch.setattr(regularization, "UNIFORM", (0.1, 1.0))
    monkeypatch.setattr(engine, "_alone", measured.__getitem__)
    report = engine.report(tmp_path)
    assert report["test loss (best uniform)"] == 3.0  # that of the least validation loss, not of the least test loss
    assert report["test accuracy (best uniform)"] == 0.5
    assert report["test accuracy (none)"] == 0.1


@pytest.mark.parametrize(
    ("engine_class", "missing"), [(ReweightingEngine, "Classifier"), (RegularizationEngine, "RegularizedClassifier")]
)
def test_an_engine_without_its_problems_names_those_it_has(engine_class, missing):
    net = nn.Linear(2, 2)
    plain = Plain("plain", module=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(ConfigError, match=rf"exactly one problem of class {missing}.*got 0.*plain \(Plain\)"):
        engine_class([plain], test=[])


def test_without_matplotlib_the_run_does_not_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"needs matplotlib; install it with: pip install 'multilevel\[examples\]'"):
        build(load("reweight-digits"))
