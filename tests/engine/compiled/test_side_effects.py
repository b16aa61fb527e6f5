"""Recording and compiling leave nothing behind, whether they succeed or fail half-way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, Engine
from multilevel.engine.compiled import programs
from multilevel.hypergrad import tracing
from multilevel.hypergrad.errors import CompileWarning, TracingError

from ...givens import Given, assert_same, bits
from .builds import bilevel, fit
from .twins import Twins, random_state

pytestmark = [pytest.mark.usefixtures("recorded"), pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")]


def normalizing() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 1))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def identities(engine: Engine) -> Any:
    """The objects that must stay where they are."""
    return {
        name: (
            {key: id(tensor) for key, tensor in problem.module.named_parameters()},
            {key: id(tensor) for key, tensor in problem.module.named_buffers()},
            [id(p) for p in problem.level.parameters],
            [id(p) for group in problem.optimizer.param_groups for p in group["params"]],
            id(problem.optimizer),
            id(problem.level.moment),
            id(problem.level.memory),
            {key: id(value) for key, value in problem.level.memory.items()},
            [p.grad for p in problem.level.parameters],
            sorted(vars(problem)),
            list(map(id, problem.module._parameters.values())),
        )
        for name, problem in engine.problems.items()
    }


class Watched:
    """Takes note of everything before and after each recording.

    Attributes:
        engine: Whose recordings.
        seen: Before and after each.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine: Any = None
        self.seen: list[tuple[Any, Any]] = []
        record = programs.record

        def noting(*arguments: Any, **options: Any) -> Any:
            before = copy.deepcopy(bits(self.engine)), identities(self.engine), random_state()
            try:
                return record(*arguments, **options)
            finally:
                self.seen.append((before, (copy.deepcopy(bits(self.engine)), identities(self.engine), random_state())))

        monkeypatch.setattr(programs, "record", noting)

    def assert_untouched(self) -> None:
        """Nothing is another than it was before."""
        assert self.seen
        for (state, objects, random), (new_state, new_objects, new_random) in self.seen:
            assert_same(new_state, state)
            assert new_objects == objects
            assert new_random == random


METHODS = [CG(1, warm_start=True, damping=0.5), "sama", "unroll"]


@pytest.mark.parametrize("method", METHODS, ids=["cg", "sama", "unroll"])
def test_recording_leaves_no_trace(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    twins = Twins(bilevel(method, module=normalizing, optimizer=adam))
    watched.engine = twins.compiled
    twins.step()
    twins.assert_compiled()
    watched.assert_untouched()


class Fails(CG):
    """A method that fails when everything is in place."""

    def iterate_unread(self, product: Any, right: Any, target: float) -> Any:
        product(right)
        raise TracingError("half-way")


def test_a_recording_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    twins = Twins(bilevel(Fails(2, damping=0.5), module=normalizing))
    watched.engine = twins.compiled
    with pytest.warns(CompileWarning, match="half-way"):
        twins.step(8)
    twins.assert_equal()
    watched.assert_untouched()
    assert not tracing.is_tracing()


def test_tensors_that_a_failing_step_writes_to_are_as_before() -> None:
    def writes(problem: Given, batch: Tensor) -> Any:
        problem.kept.add_(1)
        return fit(problem, batch * problem.kept)

    def prepare(lower: Given, upper: Given) -> None:
        lower.kept = torch.zeros(())

    twins = Twins(bilevel("identity", lower=writes, prepare=prepare))
    with pytest.warns(CompileWarning, match="writes to a tensor that stays"):
        twins.step(7)
    assert twins.compiled["lower"].kept == twins.eager["lower"].kept


def test_an_engine_of_the_same_classes_is_another() -> None:
    """Programs belong to one engine: the next one begins anew, with batches and parameters of its own."""
    for _ in range(2):
        twins = Twins(bilevel("identity", module=lambda: nn.Linear(2, 1)))
        twins.step(6)
        twins.assert_equal()
        twins.assert_compiled()


def test_what_the_engine_asks_in_between_changes_nothing() -> None:
    """A hypergradient is computed eagerly while programs wait."""
    twins = Twins(bilevel(CG(2, damping=0.5), module=lambda: nn.Linear(2, 1)))
    twins.step(6)
    found: list[Any] = []
    twins.each(lambda engine: found.append(engine.hypergradient("upper")))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)
    twins.step(2)
    twins.assert_equal()
