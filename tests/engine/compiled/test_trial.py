"""A program is used once it found what an eager step did; one that finds something else never is, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel.engine.compiled.trial import Digest, difference, digests, nudged
from multilevel.hypergrad.errors import CompileWarning

from ...givens import Given
from .builds import batches, bilevel
from .solo import base, solo
from .twins import Twins

pytestmark = pytest.mark.usefixtures("recorded")

Step = Callable[[Given, Any], Any]


def knows_parameters(problem: Given, batch: Any) -> Tensor:
    """What stands in for a parameter while a step is recorded is none."""
    return base(problem) + sum(p.square().sum() for p in problem.parameters if isinstance(p, nn.Parameter))


def reads_its_optimizer(problem: Given, batch: Any) -> Tensor:
    state = problem.optimizer.state.get(problem.module.value, {})
    return base(problem) * (1 + state["exp_avg"].norm()) if state else base(problem)


def reads_marks(problem: Given, batch: Tensor) -> Tensor:
    return base(problem) * batch.sum() * (2 if hasattr(batch, "marked") else 1)


def marked() -> list[Tensor]:
    data = [torch.ones(2) for _ in range(3)]
    for batch in data:
        batch.marked = True
    return data


@pytest.mark.parametrize("step", [knows_parameters, reads_its_optimizer, reads_marks], ids=lambda step: step.__name__)
def test_what_no_program_knows_of(step: Step) -> None:
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.1)  # noqa: E731
    twins = Twins(solo(step, optimizer=adam, data=marked if step is reads_marks else None))
    with pytest.warns(
        CompileWarning, match="'fit' is not compiled .* its program finds another loss than the eager step"
    ):
        twins.step(9)
    twins.assert_equal()


Spoil = Callable[[list[Tensor]], list[Tensor]]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Spoil]]:
    """What to do with the results of the programs, by the order in which these are made."""
    import torch._inductor

    spoils: dict[int, Spoil] = {}
    made: list[int] = []

    def mistaken(graph: Any, examples: Any, **options: Any) -> Any:
        spoil = spoils.get(len(made), list)
        made.append(1)
        return lambda *tensors: spoil(list(graph(*tensors)))

    monkeypatch.setattr(torch._inductor, "standalone_compile", mistaken)
    yield spoils
    assert len(made) > max(spoils)


def off_by(factor: float, number: int) -> Spoil:
    def spoil(results: list[Tensor]) -> list[Tensor]:
        results[number] = results[number] * factor
        return results

    return spoil


def normalizing() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def shows(problem: Given, batch: Tensor) -> Any:
    loss = problem.module(batch).square().mean()
    return {"loss": loss, "spread": batch.std()}


@pytest.mark.parametrize(
    ("number", "what"),
    [(0, "another loss"), (1, "another metric 'spread'"), (2, "another gradient"), (-1, "other|another buffers")],
)
def test_results_that_a_compiler_gets_wrong(number: int, what: str, compiler: dict[int, Spoil]) -> None:
    compiler[0] = off_by(1.01, number)
    twins = Twins(solo(shows, normalizing, lambda: batches(4, 2)))
    with pytest.warns(CompileWarning, match=f"'fit' is not compiled .* finds ({what})"):
        twins.step(9)
    twins.assert_equal(within=0.0)
    assert twins.compilation("fit").steps == 0


def test_a_derivative_through_a_level_that_a_compiler_gets_wrong(compiler: dict[int, Spoil]) -> None:
    """The loss is compiled all the same."""
    compiler[1] = off_by(1.01, 2)
    twins = Twins(bilevel("identity"))
    with pytest.warns(CompileWarning, match="'upper' is compiled but for .* its program finds another total gradient"):
        twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.parametrize("number", [1, 2], ids=["through the last step", "through the first step"])
def test_a_way_back_that_a_compiler_gets_wrong(number: int, compiler: dict[int, Spoil]) -> None:
    compiler[number] = off_by(1.01, 0)
    twins = Twins(bilevel("unroll", unroll_steps=2))
    with pytest.warns(CompileWarning, match="the way back through the steps of problem 'lower' is not compiled"):
        twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()


def test_a_program_that_fails(compiler: dict[int, Spoil]) -> None:
    def fails(results: list[Tensor]) -> list[Tensor]:
        raise RuntimeError("out of something")

    compiler[0] = fails
    twins = Twins(solo(shows, normalizing, lambda: batches(4, 2)))
    with pytest.warns(CompileWarning, match="'fit' is not compiled .*RuntimeError: out of something"):
        twins.step()
    twins.assert_equal(within=0.0)


def digested(*tensors: Tensor) -> list[Digest]:
    return digests(tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_taken_for_rounding(dtype: torch.dtype) -> None:
    """Half of the digits have to agree, whatever there are."""
    precision = torch.finfo(dtype).eps
    tensor = torch.linspace(-1, 1, 12).reshape(3, 4)
    for digits, agrees in ((0.75, True), (0.4, False)):
        found = digested(tensor * (1 + precision**digits))
        assert (difference(found, digested(tensor), found, precision) is None) == agrees


def test_what_is_zero_but_for_rounding_may_be_another_zero() -> None:
    large, small = torch.ones(4), torch.full((4,), 1e-15)
    found = digested(large, -small)
    assert difference(found, digested(large, small), found, 1e-16) is None
    assert difference(found[1:], digested(small), found[1:], 1e-16) is not None


def test_what_another_rounding_changes_much_may_be_another() -> None:
    found, nearby, far = digested(torch.ones(2)), digested(torch.full((2,), 0.9)), digested(torch.full((2,), -1.0))
    expected = digested(torch.full((2,), 0.5))
    assert difference(found, expected, found, 1e-16) is not None
    assert difference(found, expected, nearby, 1e-16) is None
    assert difference(found, far, nearby, 1e-16) is not None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none(number: float) -> None:
    fine, spoiled = digested(torch.ones(2)), digested(torch.tensor([1.0, number]))
    assert difference(spoiled, spoiled, spoiled, 1e-16) is None
    assert difference(fine, spoiled, fine, 1e-16) is not None


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0), (2, 3), (2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64, torch.complex64, torch.bfloat16], ids=str)
def test_any_tensor_has_a_digest(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    found = digested(tensor)
    assert difference(found, digested(tensor.clone()), found, 1e-7) is None
    if tensor.numel():
        assert difference(found, digested(torch.zeros_like(tensor)), found, 1e-7) is not None


def test_a_digest_is_small_and_sees_two_entries_that_swap() -> None:
    tensor = torch.arange(10_000.0).reshape(100, 100)
    swapped = tensor.clone()
    swapped[0, 0], swapped[5, 7] = tensor[5, 7], tensor[0, 0]
    found = digested(tensor)
    assert found[0].sums.numel() == 200
    assert difference(found, digested(swapped), found, 1e-10) is not None


def test_roundings_are_taken_off_in_their_own_places() -> None:
    tensors = [torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1, 2]), torch.ones(2, 2).t()]
    moved = nudged(tensors, 0.1)
    assert moved[1] is tensors[1]
    assert (moved[0][:2].abs() < tensors[0][:2].abs()).all()
    assert moved[0][2] == 0
    assert [t.stride() for t in moved] == [t.stride() for t in tensors]
    assert all(torch.equal(a, b) for a, b in zip(moved, nudged(tensors, 0.1), strict=True))


class Sensitive(nn.Module):
    """A derivative that rounding decides."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self) -> Tensor:
        return (1e12 * self.value.detach()).sin() * self.value


def test_a_step_that_rounding_decides_is_compiled_once_that_was_measured(compiler: dict[int, Spoil]) -> None:
    twins = Twins(solo(lambda problem, batch: base(problem), Sensitive))
    compiler[0] = off_by(1 + 1e-5, 1)
    twins.step(5)
    assert twins.compilation("fit").steps == 0
    twins.step(4)
    twins.assert_compiled()
