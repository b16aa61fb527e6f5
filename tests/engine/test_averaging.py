"""An engine among several processes trains a model of its own, and says so unless somebody averages."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from multilevel import Engine, NumericsWarning

from ..givens import Given, square

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")


class Averaging(Given):
    """Would average its gradients."""

    def grad_callback(self) -> None:
        """Nothing to do for a group of one process."""


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def said(*problems: Given) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Engine(problems)
    assert all(issubclass(warning.category, NumericsWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def test_one_process_is_told_nothing(group: None) -> None:
    assert said(Given("alone", square)) == []


def test_several_are_told_once_that_nothing_is_averaged(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    (words,) = said(Given("alone", square))
    assert "a torch.distributed group of 2" in words
    assert "averages nothing" in words
    assert "grad_callback" in words
    assert said(Given("alone", square)) == []


def test_the_first_of_them_says_it_for_all(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    assert said(Given("alone", square)) == []


def test_whoever_edits_gradients_may_average_them(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert said(Averaging("alone", square)) == []
