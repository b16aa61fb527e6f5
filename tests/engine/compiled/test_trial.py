"""A program is used once it found what an eager step did; one that finds something else never is, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG
from multilevel.engine.audit.allocation import PeakMemory
from multilevel.engine.compiled.trial import difference, digests, nudged, spread
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


def differs(expected: Any, found: Any, precision: float = 1e-16, rounding: float = 0.0) -> bool:
    """Whether these are taken for mistakes: tensors, or lists of them."""
    one, other = (digests([x] if isinstance(x, Tensor) else x) for x in (expected, found))
    return difference(one, other, precision, rounding) is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_taken_for_rounding(dtype: torch.dtype) -> None:
    """Half of the digits have to agree, whatever there are."""
    precision = torch.finfo(dtype).eps
    tensor = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert not differs(tensor, tensor * (1 + precision**0.75), precision)
    assert differs(tensor, tensor * (1 + precision**0.3), precision)


def test_what_is_zero_but_for_rounding_may_be_another_zero() -> None:
    large, small = torch.ones(4), torch.full((4,), 1e-16)
    assert not differs([large, small], [large, -small])
    assert differs(small, -small)


def test_what_another_rounding_changes_much_may_be_another() -> None:
    expected, found = torch.full((2,), 0.5), torch.ones(2)
    assert differs(expected, found)
    assert not differs(expected, found, rounding=0.2)
    assert differs(-expected, found, rounding=0.2)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none(number: float) -> None:
    fine, spoiled = torch.ones(2), torch.tensor([1.0, number])
    assert not differs(spoiled, spoiled)
    assert differs(fine, spoiled)
    assert differs(spoiled, fine)


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0), (2, 3), (2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64, torch.complex64, torch.bfloat16], ids=str)
def test_any_tensor_has_a_digest(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    assert not differs(tensor, tensor.clone(), 1e-7)
    assert differs(tensor, torch.zeros_like(tensor), 1e-7) == bool(tensor.numel())


def test_whole_numbers_are_the_same_or_not() -> None:
    """However large, and whatever is beside them."""
    count = torch.tensor(10**9)
    assert differs([count, torch.ones(2)], [count + 1, torch.ones(2)], precision=1e-7)
    assert differs([count, torch.ones(2)], [count, torch.ones(2) * 1.3], precision=1e-7)


def test_a_digest_is_small_and_sees_two_entries_that_swap() -> None:
    tensor = torch.arange(10_000.0).reshape(100, 100)
    swapped = tensor.clone()
    swapped[0, 0], swapped[5, 7] = tensor[5, 7], tensor[0, 0]
    assert digests([tensor])[0].sums.numel() == 201
    assert differs(tensor, swapped, 1e-10)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 2.0])
def test_rows_and_columns_that_sum_to_zero(factor: float) -> None:
    """As the gradient of a softmax layer behind a layer normalization has them."""
    tensor = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    tensor = tensor - tensor.mean(0)
    tensor = tensor - tensor.mean(1, keepdim=True)
    assert differs(tensor, tensor * factor, 1e-7)


def test_numbers_are_moved_to_both_sides_and_whole_ones_are_not() -> None:
    tensors = [torch.linspace(0.5, 2.5, 41), torch.tensor([1, 2]), torch.full((2, 3), 0.3).t()]
    moved = nudged(tensors, 1e-3, seed=0)
    change = moved[0] - tensors[0]
    whole = tensors[0] == tensors[0].round()
    assert (change[whole] == 0).all()
    assert (change[~whole] > 0).any()
    assert (change[~whole] < 0).any()
    assert (change.abs() <= 1.01e-3 * tensors[0]).all()
    assert moved[1] is tensors[1]
    assert [t.stride() for t in moved] == [t.stride() for t in tensors]
    assert all(torch.equal(a, b) for a, b in zip(moved, nudged(tensors, 1e-3, seed=0), strict=True))
    assert not torch.equal(moved[0], nudged(tensors, 1e-3, seed=1)[0])


def test_moving_by_roundings_holds_three_tensors_at_most():
    tensor = torch.randn(1000)
    with PeakMemory() as memory:
        nudged([tensor], 1e-3, seed=0)
    assert memory.peak < 3 * tensor.nbytes


def test_the_spread_is_that_of_all_tensors_and_of_the_widest_measurement() -> None:
    usual = digests([torch.zeros(()), torch.zeros(())])
    near, far = digests([torch.tensor(3.0), torch.tensor(4.0)]), digests([torch.tensor(6.0), torch.tensor(8.0)])
    none = digests([torch.tensor(float("nan")), torch.tensor(0.0)])
    assert spread(usual, [near, far, none]) == pytest.approx(2 * spread(usual, [near]))
    assert spread(usual, []) == spread(usual, [none]) == 0


class Sensitive(nn.Module):
    """A derivative that rounding decides."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.1, 2.3]))

    def forward(self) -> Tensor:
        return (1e12 * self.value.detach()).sin() * self.value


def test_a_step_that_rounding_decides_is_compiled_once_that_was_measured(compiler: dict[int, Spoil]) -> None:
    twins = Twins(solo(lambda problem, batch: base(problem), Sensitive))
    compiler[0] = off_by(1 + 1e-5, 1)
    twins.step(5)
    assert twins.compilation("fit").steps == 0
    twins.step(4)
    twins.assert_compiled()


def silent_at_first(problem: Given, batch: Any) -> Tensor:
    return base(problem) * problem.weight


def test_a_step_of_zeros_tells_nothing(compiler: dict[int, Spoil]) -> None:
    """A program that is wrong by a factor agrees on zero."""
    compiler[0] = off_by(3.0, 1)
    twins = Twins(solo(silent_at_first, attributes=lambda p: {"weight": torch.zeros(())}))
    twins.step(6)
    twins.each(lambda engine: engine["fit"].weight.fill_(1.0))
    with pytest.warns(CompileWarning, match="finds another gradient"):
        twins.step(3)
    twins.assert_equal(within=0.0)


def shows_sometimes(problem: Given, batch: Any) -> Any:
    loss = base(problem)
    if isinstance(problem.parameters[0], nn.Parameter):
        return {"loss": loss, "shown": loss.detach()}
    return loss


def test_a_metric_that_a_program_does_not_have(compiler: dict[int, Spoil]) -> None:
    compiler[0] = list
    twins = Twins(solo(shows_sometimes))
    with pytest.warns(CompileWarning, match="finds no metric 'shown'"):
        twins.step(9)
    twins.assert_equal(within=0.0)


@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
def test_a_memory_that_a_compiler_gets_wrong(compiler: dict[int, Spoil]) -> None:
    compiler[1] = off_by(1.01, 0)
    twins = Twins(bilevel(CG(2, warm_start=True, damping=0.5)))
    with pytest.warns(CompileWarning, match="'upper' is compiled but for .* finds another memory of 'lower'"):
        twins.step(9)
    twins.assert_equal()
