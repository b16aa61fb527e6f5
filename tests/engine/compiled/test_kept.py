"""A compiled unroll: the derivative of a step is the other half of its program, and no step is evaluated again."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import ProblemError, Unroll
from multilevel.hypergrad.reversal import Reversal

from ...givens import Given
from .builds import bilevel, fit, hierarchy, net
from .test_numbers import dropping, normalizing
from .twins import Build, Twins

pytestmark = pytest.mark.usefixtures("recorded")

SGD, ADAM = torch.optim.SGD, torch.optim.Adam


def in_place(problem: Given, batch: Tensor) -> Tensor:
    """Writes to tensors on its way, and takes entries by their numbers."""
    outputs = problem.module(batch[:, :2]).repeat(1, 2)
    outputs[:, 1] *= problem.upper().exp()[0]
    outputs.mul_(2.0)
    return (outputs[torch.tensor([0, 2, 2])] - batch[:3, 2:]).square().mean()


def linear(problem: Given, batch: Tensor) -> Tensor:
    """Has a gradient that depends on no parameter of its own."""
    return (problem.module(batch[:, :2]) * problem.upper().exp().mean()).mean()


def scaled_in_place(problem: Given, batch: Tensor) -> Any:
    """Changes its loss in place: what it returns of it, before and after, are results of one operation each."""
    loss = (problem.module(batch[:, :2]) - batch[:, 2:]).square().mean()
    metrics = {"plain": loss.detach()}
    loss *= problem.upper().exp().mean()
    return {"loss": loss, **metrics, "again": loss.detach()}


class Spread(nn.Module):
    """A parameter with gaps between its entries, which no clone of it has."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8).reshape(2, 4)[:, :2])

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).tanh().sum(1, keepdim=True)


BUILDS: dict[str, Build] = {
    "sgd": bilevel("unroll", unroll_steps=3),
    "one step": bilevel("unroll"),
    "momentum": bilevel("unroll", unroll_steps=3, optimizer=partial(SGD, lr=0.05, momentum=0.9, nesterov=True)),
    "decay": bilevel("unroll", unroll_steps=2, optimizer=partial(SGD, lr=0.05, weight_decay=0.1)),
    "adam": bilevel("unroll", unroll_steps=3, optimizer=partial(ADAM, lr=0.01)),
    "clipping": bilevel("unroll", unroll_steps=2, gradient_clipping=0.1, gradient_accumulation=2),
    "accumulation": bilevel("unroll", unroll_steps=2, gradient_accumulation=2),
    "truncation": bilevel(Unroll(truncation=2), unroll_steps=4),
    "dropout": bilevel("unroll", unroll_steps=2, module=dropping),
    "running statistics": bilevel("unroll", unroll_steps=2, module=normalizing),
    "in place": bilevel("unroll", unroll_steps=2, lower=in_place),
    "loss in place": bilevel("unroll", unroll_steps=2, lower=scaled_in_place),
    "linear": bilevel("unroll", unroll_steps=2, lower=linear, module=lambda: nn.Linear(2, 1)),
}


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with an entry for every step that is evaluated again."""
    seen: list[int] = []
    evaluate = Reversal._again

    def counted(self: Reversal, *arguments: Any, **options: Any) -> None:
        seen.append(1)
        evaluate(self, *arguments, **options)

    monkeypatch.setattr(Reversal, "_again", counted)
    return seen


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.slow if i % 2 else ()) for i, key in enumerate(BUILDS)]
)
def test_it_is_the_eager_unroll(key: str, again: list[int]) -> None:
    twins = Twins(BUILDS[key])
    twins.step(28)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(again) == 0


@pytest.mark.parametrize(("checkpoints", "problem"), [("all", "chain"), ("graphs", "chain"), ("graphs", "diamond")])
def test_below_a_middle_level_and_without_graphs(checkpoints: Any, problem: str) -> None:
    twins = Twins(hierarchy(problem, Unroll(checkpoints=checkpoints)))
    with pytest.warns(UserWarning, match="goes back through the steps"):
        twins.step(8)
    twins.assert_equal()


class Initialised(Given):
    """Starts each inner loop from the upper's parameters."""

    def initial_parameters(self) -> Any:
        return [self.upper().mean() * torch.ones_like(p) / 3 for p in self.parameters]


def test_a_start_that_depends_on_the_upper(again: list[int]) -> None:
    twins = Twins(bilevel("unroll", unroll_steps=2, classes=(Initialised, Given)))
    twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(again) == 0


class Clamped(Given):
    """Writes to its parameters behind autograd's back."""

    def param_callback(self) -> None:
        for p in self.parameters:
            p.data.clamp_(-0.3, 0.3)


def test_parameters_that_are_moved_from_outside_are_noticed() -> None:
    twins = Twins(bilevel("unroll", unroll_steps=2, classes=(Clamped, Given)))
    errors: list[str] = []

    def advance(engine: Any) -> None:
        with pytest.raises(Exception, match="taken again, end") as caught:
            [engine.step() for _ in range(12)]
        errors.append(f"{engine.step_count} {caught.value}")

    twins.each(advance)
    assert errors[0].split()[0] == errors[1].split()[0]


def test_a_batch_that_is_written_to_after_its_step_is_noticed() -> None:
    """The other half reads it: the step would be evaluated again, on another batch, which is refused."""
    data = [torch.randn(8, 3, generator=torch.Generator().manual_seed(2)) for _ in range(2)]

    def writes(engine: Any) -> None:
        for _ in range(11):
            engine.step()
        for batch in data:
            batch.add_(0.0)
        with pytest.raises(ProblemError, match="problem 'lower': its batch was written to after it was trained on"):
            engine.step()

    Twins(bilevel("unroll", unroll_steps=3, data=data)).each(writes)


def test_what_was_handed_over_is_freed() -> None:
    twins = Twins(bilevel("unroll", unroll_steps=3))

    def tensors_after(steps: int) -> int:
        for _ in range(steps):
            twins.compiled.step()
        twins.forget()
        gc.collect()
        return sum(type(found) is Tensor for found in gc.get_objects())

    assert tensors_after(15) == tensors_after(12)


def test_the_other_half_runs_as_it_is_where_it_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor

    usual, calls = torch._inductor.standalone_compile, []

    def fails(graph: Any, examples: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("not this one")
        return usual(graph, examples, **options)

    monkeypatch.setattr(torch._inductor, "standalone_compile", fails)
    twins = Twins(bilevel("unroll", lower=fit, module=net))
    twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(calls) == 3


def test_parameters_with_gaps_have_copies_with_gaps() -> None:
    twins = Twins(bilevel("unroll", unroll_steps=2, module=Spread))
    twins.step(14)
    copies = twins.compiled["lower"].level.loop.graphs.copies()
    assert [copy.stride() for copy in copies] == [(4, 1)]
    twins.assert_equal()
    twins.assert_compiled()
