"""Validation: the problems' own steps over their data, without a trace in the run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multilevel import Engine, EngineConfig, ProblemError
from multilevel.configs.loader import load
from multilevel.engine.build import build

from ..conftest import EXACT
from ..givens import Given, Vector, assert_same, bits
from .toy import write_toy

DATA = torch.arange(10.0)


class Checked(Given):
    """The mean and the largest of the validation data, and whether anything is as it should be while it is read."""

    def validation_step(self, batch: Any) -> Any:
        (numbers,) = batch
        assert not torch.is_grad_enabled()
        assert not self.module.training
        return {"mean": numbers.mean(), "largest": numbers.max().item()}


def checked(step: type[Given] = Checked, **config: Any) -> Engine:
    problem = step(
        "p",
        lambda p, b: p.module().square().sum() * (1 + torch.rand(())),
        Vector(1.0),
        validation_data_loader=DataLoader(TensorDataset(DATA), 4, shuffle=True),
    )
    return Engine([problem], config=EngineConfig(train_iters=4, seed=0, **config))


def test_metrics_are_means_over_examples() -> None:
    engine = checked()
    loader = DataLoader(TensorDataset(DATA), 4)  # 4, 4 and 2 examples
    engine["p"].validation_data_loader = loader
    found = engine.validate()
    assert found["p/mean"] == pytest.approx(4.5, abs=EXACT)
    assert found["p/largest"] == pytest.approx((4 * 3 + 4 * 7 + 2 * 9) / 10, abs=EXACT)


def test_a_validated_run_trains_to_the_same_bits() -> None:
    """Shuffling the validation data draws random numbers, which are put back."""
    states = []
    for valid_step in (0, 1):
        engine = checked(valid_step=valid_step)
        engine.run()
        states.append(bits(engine))
        states[-1]["last_validation"] = None
    assert_same(*states)


@pytest.mark.parametrize("first", [False, True])
def test_the_first_validation_comes_before_training_on_request(first: bool) -> None:
    seen: list[int] = []

    class Noting(Engine):
        def validation(self) -> dict[str, float]:
            seen.append(self.step_count)
            return {}

    engine = Noting(
        [Given("p", lambda p, b: p.module().sum())],
        config=EngineConfig(train_iters=4, valid_step=2, validate_first=first),
    )
    engine.run()
    assert seen == ([0] if first else []) + [2, 4]


def test_an_engines_own_validation_is_added() -> None:
    class Both(Engine):
        def validation(self) -> dict[str, float]:
            return {"accuracy": 0.5}

    problem = Checked("p", lambda p, b: p.module().sum(), validation_data_loader=[(DATA,)])
    assert set(Both([problem]).validate()) == {"p/mean", "p/largest", "accuracy"}


class Loss(Given):
    def validation_step(self, batch: Any) -> Tensor:
        return self.module().sum()


def test_without_data_there_is_one_step_and_a_bare_tensor_is_the_loss() -> None:
    assert Engine([Loss("p", lambda p, b: p.module().sum(), Vector(3.0))]).validate() == {"p/loss": torch.tensor(3.0)}


def test_modes_are_put_back_exactly() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.BatchNorm1d(1))
    module[1].eval()
    engine = Engine([Loss("p", lambda p, b: p.module(b).sum(), module, validation_data_loader=None)])
    engine["p"].module.forward = lambda: torch.ones(())
    engine.validate()
    assert [part.training for part in module.modules()] == [True, True, False, True]


class Wrong(Given):
    def validation_step(self, batch: Any) -> Any:
        return {"losses": torch.ones(3)}


def test_a_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"'p': validation_step returned 'losses' of shape \(3,\)"):
        Engine([Wrong("p", lambda p, b: p.module().sum())]).validate()


CODE = """

class Judged(Upper):
    def validation_step(self, batch):
        return {"distance": (self.lower() - batch).abs().sum()}
"""


def test_validation_data_from_a_file(tmp_path: Any) -> None:
    path = write_toy(tmp_path)
    (tmp_path / "code.py").write_text((tmp_path / "code.py").read_text() + CODE)
    text = path.read_text().replace("code.py:Upper", "code.py:Judged")
    path.write_text(
        text.replace("value: 3}\n", "value: 3}\n    validation_data: {class: code.py:noise, count: 2}\n", 1)
    )
    engine = build(load(path))
    assert "upper/distance" in engine.validate()


class Raising(Checked):
    def validation_step(self, batch: Any) -> Any:
        torch.rand(3)
        raise RuntimeError("no metric today")


def test_a_validation_that_raises_leaves_the_random_numbers_alone() -> None:
    engine = checked(Raising)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no metric today"):
        engine.validate()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (torch.ones(()), r"Tensor of shape \(\)"),
        (torch.zeros(3), r"Tensor of shape \(3,\)"),
        (0.5, "float"),
        (0, "int"),
        ([1.0], "list"),
    ],
)
def test_an_engines_validation_that_is_no_mapping_is_refused_in_words(returned: Any, came: str) -> None:
    class Bare(Engine):
        def validation(self) -> Any:
            return returned

    engine = Bare([Given("p", lambda p, b: p.module().sum())], config=EngineConfig(train_iters=1, valid_step=1))
    with pytest.raises(ProblemError, match=f"Bare.validation must return a mapping of names to numbers.*; got {came}"):
        engine.run()


class Pair(Given):
    def validation_step(self, batch: Any) -> Any:
        inputs, labels = batch
        return (inputs - labels).mean()


def test_a_step_that_needs_data_says_whose_data_is_missing() -> None:
    engine = Engine([Pair("p", lambda p, b: p.module().sum())])
    message = (
        r"'p': validation_step raised TypeError: .* Its batch was None, because problem 'p' has no validation_data_"
    )
    with pytest.raises(ProblemError, match=message) as caught:
        engine.validate()
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(("value", "kind"), [("good", "str"), (10**400, "int"), (None, "NoneType"), ([1, "a"], "list")])
def test_a_metric_that_no_tensor_can_hold_is_refused_by_its_name(value: Any, kind: str) -> None:
    class Odd(Given):
        def validation_step(self, batch: Any) -> Any:
            return {"quality": value}

    engine = Engine([Odd("p", lambda p, b: p.module().sum())])
    with pytest.raises(ProblemError, match=f"'p': validation_step must return one .* as 'quality', got {kind}"):
        engine.validate()
