"""The recipes' data is what it says, and their losses are the published formulas."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from multilevel import Config, Engine
from multilevel.hypergrad.errors import ConfigError
from multilevel.problems.recipes import breast_cancer, digits
from multilevel.problems.recipes.noisy_labels import flip_labels
from multilevel.problems.recipes.regularization import FeatureL2, RegularizedClassifier, UniformlyRegularized
from multilevel.problems.recipes.reweighting import Classifier, Reweight, WeightNet

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def rows(inputs: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in inputs.tolist()}


# --- Digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_divided_into_parts_without_a_common_sample():
    noisy, clean, test = digits.noisy_train().dataset.tensors, digits.clean().dataset.tensors, digits.held_out()[0]
    assert [len(part[0]) for part in (noisy, clean, test)] == [1100, 100, 597]
    assert len(rows(torch.cat([noisy[0], clean[0], test[0]]))) == 1797
    assert clean[1].bincount().tolist() == [10] * 10
    assert noisy[0].mean().item() == pytest.approx(0, abs=1e-12)
    assert noisy[0].std().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_has_the_default_type_of_torch(dtype):
    torch.set_default_dtype(dtype)
    parts = [next(iter(digits.noisy_train())), next(iter(digits.clean())), digits.held_out()[0]]
    assert {inputs.dtype for inputs, _ in parts} == {dtype}
    assert {tensor.dtype for tensor in breast_cancer.train()[0]} == {dtype}


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_exactly_the_share_of_labels_is_wrong_and_all_classes_stand_in(share):
    truth = torch.arange(1000) % 10
    labels = flip_labels(truth, share, 10, torch.Generator().manual_seed(0))
    wrong = labels != truth
    assert wrong.sum() == round(share * 1000)
    assert 0 <= labels.min() <= labels.max() <= 9
    assert set(((labels - truth) % 10)[wrong].tolist()) == (set(range(1, 10)) if share else set())


def test_the_noisy_samples_say_which_labels_are_wrong():
    right = digits.noisy_train(flip=0.0).dataset
    wrong = digits.noisy_train(flip=0.4).dataset
    assert not right.corrupted.any()
    assert torch.equal(wrong.corrupted, right.tensors[1] != wrong.tensors[1])
    assert wrong.corrupted.sum() == 440


def test_labels_and_order_follow_the_seed_of_the_run_and_the_parts_do_not():
    def made(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(seed)
        torch.rand(seed + 1)  # what was drawn before, as for a module's parameters, does not matter
        loader = digits.noisy_train()
        return loader.dataset.tensors[0], loader.dataset.tensors[1], next(iter(loader))[1]

    first, again, other = made(0), made(0), made(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[2], other[2])
    explicit = digits.noisy_train(seed=1)
    assert torch.equal(explicit.dataset.tensors[1], other[1])


def test_every_epoch_has_another_order_and_no_sample_twice():
    loader = digits.noisy_train(batch_size=200)
    epochs = [torch.cat([inputs for inputs, _ in loader]) for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [1000, 1000]
    assert all(len(rows(epoch)) == 1000 for epoch in epochs)
    assert not torch.equal(*epochs)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"share to flip must be from 0 to 1, got 40"):
        digits.noisy_train(flip=40)


@pytest.mark.parametrize(("make", "words"), [(digits.clean, "the digits"), (breast_cancer.train, "breast cancer")])
def test_without_scikit_learn_the_error_says_what_to_install(make, words, monkeypatch):
    digits._parts.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=rf"{words}.*scikit-learn.*pip install 'multilevel\[examples\]'"):
        make()


# --- Breast cancer ----------------------------------------------------------------------------------------------------


def test_breast_cancer_is_divided_alike_by_the_three_functions():
    torch.manual_seed(3)
    parts = [make()[0] for make in (breast_cancer.train, breast_cancer.validation, breast_cancer.held_out)]
    assert [inputs.shape for inputs, _ in parts] == [(100, 60), (250, 60), (219, 60)]
    assert len(rows(torch.cat([inputs for inputs, _ in parts]))) == 569
    deviation, mean = torch.std_mean(parts[0][0], dim=0)
    torch.testing.assert_close(mean, torch.zeros(60), **EXACT)
    torch.testing.assert_close(deviation, torch.ones(60), **EXACT)
    assert torch.cat([labels for _, labels in parts]).unique().tolist() == [0, 1]
    other = breast_cancer.train(seed=4)[0][0]
    assert len(rows(other) & rows(parts[0][0])) == 0  # standardised by others, so no row is the same


def test_noise_columns_are_as_many_as_asked_and_not_fewer_than_none():
    assert breast_cancer.train(noise_columns=0)[0][0].shape == (100, 30)
    with pytest.raises(ConfigError, match="noise_columns must be at least 0, got -1"):
        breast_cancer.train(noise_columns=-1)


# --- Reweighting ------------------------------------------------------------------------------------------------------


def reweighting(method: str) -> Engine:
    net, weights = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), WeightNet(6)
    classifier = Classifier(
        "classifier",
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.05),
        train_data_loader=digits.noisy_train(20),
        config=Config(type=method, unroll_steps=50),  # the upper stays where it is
    )
    reweight = Reweight(
        "reweight",
        module=weights,
        optimizer=torch.optim.SGD(weights.parameters(), lr=0.1),
        train_data_loader=[digits.clean().dataset.tensors],
    )
    engine = Engine([reweight, classifier], edges=[(reweight, classifier)])
    for _ in range(5):
        engine.step()
    return engine


def by_hand(engine: Engine) -> tuple[Tensor, ...]:
    """- d(v . g)/dphi, where g is what the classifier descends and v the gradient of the clean loss."""
    net, weights = engine["classifier"].module, engine["reweight"].module
    theta, phi = dict(net.named_parameters()), dict(weights.named_parameters())
    inputs, labels = engine["classifier"].level.moment.batch
    losses = F.cross_entropy(functional_call(net, theta, inputs), labels, reduction="none")
    weighted = (functional_call(weights, phi, losses.detach()) * losses).mean()
    g = torch.autograd.grad(weighted, list(theta.values()), create_graph=True)
    inputs, labels = digits.clean().dataset.tensors
    v = torch.autograd.grad(F.cross_entropy(net(inputs), labels), list(theta.values()))
    product = sum((a * b).sum() for a, b in zip(g, v, strict=True))
    return tuple(-t for t in torch.autograd.grad(product, list(phi.values())))


def test_the_hypergradient_of_the_weights_is_the_published_one():
    engine = reweighting("identity")
    torch.testing.assert_close(engine.hypergradient("reweight"), by_hand(engine), **EXACT)


def test_darts_is_not_right_for_detached_losses_as_the_recipe_warns():
    engine = reweighting("darts")
    got, expected = (torch.cat([t.flatten() for t in ts]) for ts in (engine.hypergradient("reweight"), by_hand(engine)))
    assert (got - expected).norm() > 0.2 * expected.norm()


def test_weights_have_the_shape_of_the_losses_and_lie_between_0_and_1():
    weights = WeightNet(5)(torch.linspace(0, 50, 7))
    assert weights.shape == (7,)
    assert 0 <= weights.min() <= weights.max() <= 1


# --- Regularisation ---------------------------------------------------------------------------------------------------


def test_the_penalty_is_the_sum_of_strengths_times_squares_up_to_the_largest_strength():
    penalty = FeatureL2(3)
    with torch.no_grad():
        penalty.log_strength.copy_(torch.tensor([0.0, -1.0, 50.0]))
    weight = torch.tensor([[3.0, 2.0, 1.0]])
    e = torch.e
    assert penalty(weight).item() == pytest.approx(9 + 4 / e + e**2, rel=1e-12)


def test_equal_strengths_are_a_uniform_penalty():
    net = nn.Linear(60, 1)
    penalty = FeatureL2(60, start=-3.0)
    by_feature = RegularizedClassifier("classifier", module=net)
    by_feature._neighbours = {"regularizer": penalty}
    uniform = UniformlyRegularized("classifier", module=net, strength=torch.tensor(-3.0).exp().item())
    batch = breast_cancer.train()[0]
    losses = by_feature.training_step(batch)
    torch.testing.assert_close(losses["loss"], uniform.training_step(batch), **EXACT)
    inputs, labels = batch
    fit = F.softplus((1 - 2 * labels) * net(inputs).squeeze(-1)).mean()
    torch.testing.assert_close(losses["fit"], fit, **EXACT)
