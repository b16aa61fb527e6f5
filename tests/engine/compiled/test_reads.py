"""A program runs on what is there now: everything that a step reads may change between two steps."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, Engine

from ...givens import Given
from .builds import batches, bilevel, fit
from .solo import base, solo
from .twins import Twins

pytestmark = [pytest.mark.usefixtures("recorded"), pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")]

Change = Callable[[Given], Any]
ADAM = partial(torch.optim.Adam, lr=0.01)


def to_target(problem: Given, batch: Any) -> Any:
    error = problem.module() - problem.target
    return {"loss": problem.weight * error.square().sum(), "target": problem.target, "weight": problem.weight}


def shows_only(problem: Given, batch: Any) -> Any:
    return {"loss": base(problem), "target": problem.target, "weight": problem.weight}


def written(problem: Given) -> None:
    problem.target.mul_(3)


def rebound(problem: Given) -> None:
    problem.target = torch.full((2,), 5.0)


def weighted(problem: Given) -> None:
    problem.weight += 1.5


@pytest.mark.parametrize("step", [to_target, shows_only], ids=["in the loss", "in a metric"])
@pytest.mark.parametrize(("change", "programs"), [(written, 1), (rebound, 1), (weighted, 3)])
def test_attributes_of_the_problem(step: Any, change: Change, programs: int) -> None:
    twins = Twins(solo(step, attributes=lambda p: {"target": torch.ones(2), "weight": 1.0}))
    twins.step(6)
    for _ in range(2):
        twins.each(lambda engine: change(engine["fit"]))
        twins.step(5)
    twins.assert_equal()
    twins.assert_compiled(programs)


@pytest.mark.parametrize("method", ["darts", CG(2, damping=0.5), "unroll"], ids=["darts", "cg", "unroll"])
def test_parameters_of_a_problem_and_of_its_neighbours(method: Any) -> None:
    def lower(problem: Given, batch: Any) -> Any:
        decay = sum([p.square().sum() for p in problem.parameters])
        return fit(problem, batch)["fit"] + problem.upper.parameters[0].exp().sum() * decay

    twins = Twins(bilevel(method, lower=lower))
    twins.step(8)
    twins.assert_equal()
    twins.assert_compiled()


def test_a_hook_that_is_registered_between_two_steps() -> None:
    twins = Twins(solo(fits, lambda: nn.Sequential(nn.Linear(3, 2)), data=lambda: batches(4, 3)))
    twins.step(6)
    twins.each(lambda engine: engine["fit"].module[0].register_forward_hook(lambda module, given, found: 2 * found))
    twins.step(6)
    twins.assert_equal()
    twins.assert_compiled(2)


def decayed(problem: Given, batch: Tensor) -> Tensor:
    return fits(problem, batch) + sum([p.square().sum() for p in problem.parameters if not hasattr(p, "no_decay")])


def test_marks_on_parameters() -> None:
    def module() -> nn.Module:
        made = nn.Linear(3, 2)
        made.bias.no_decay = True
        return made

    twins = Twins(solo(decayed, module, data=lambda: batches(4, 3)))
    twins.step(6)
    twins.assert_equal()
    twins.assert_compiled()


def test_a_way_that_was_taken_before_is_not_compiled_again() -> None:
    twins = Twins(solo(to_target, attributes=lambda p: {"target": torch.ones(2), "weight": 1.0}))
    for weight in (1.0, 2.0, 1.0, 2.0):
        twins.each(lambda engine, weight=weight: setattr(engine["fit"], "weight", weight))
        twins.step(6)
    twins.assert_equal()
    twins.assert_compiled(2)


def fits(problem: Given, batch: Tensor) -> Tensor:
    return problem.module(batch).square().mean()


def normalizing() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.0))


def evaluating(problem: Given) -> None:
    problem.module[1].eval()


def frozen(problem: Given) -> None:
    problem.module[0].bias.data.add_(1)


@pytest.mark.parametrize(("change", "programs"), [(evaluating, 2), (frozen, 1)])
def test_modules_in_another_mode_and_frozen_parameters(change: Change, programs: int) -> None:
    def module() -> nn.Module:
        made = normalizing()
        made[0].bias.requires_grad_(False)
        return made

    twins = Twins(solo(fits, module, lambda: batches(4, 3)))
    twins.step(6)
    twins.each(lambda engine: change(engine["fit"]))
    twins.step(5)
    twins.assert_equal()
    twins.assert_compiled(programs)


def test_a_last_batch_that_is_smaller() -> None:
    data = [*batches(4, 3), *batches(2, 3, count=1)]
    twins = Twins(solo(fits, lambda: nn.Linear(3, 1), lambda: data))
    twins.step(12)
    twins.assert_equal()
    twins.assert_compiled(2)


def test_what_a_batch_only_hands_on() -> None:
    def shows(problem: Given, batch: Any) -> Any:
        return {"loss": base(problem) * batch["x"].sum(), "label": batch["label"], "number": batch["number"]}

    data = [{"x": torch.ones(2) * i, "label": torch.tensor(i), "number": i % 2} for i in range(4)]
    twins = Twins(solo(shows, data=lambda: data))
    twins.step(10)
    twins.assert_equal()
    twins.assert_compiled(2)


def test_a_buffer_that_is_written_in_part() -> None:
    class Queue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.ones(2))
            self.register_buffer("queue", torch.zeros(4))

        def forward(self) -> Tensor:
            self.queue[:2] = self.value.detach()
            return self.value + self.queue.sum()

    twins = Twins(solo(lambda problem, batch: base(problem), Queue))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()


def test_levels_that_share_a_batch_at_first() -> None:
    """Two names of one tensor at first are two tensors later."""
    shared = batches(8, 3, count=5)

    def prepare(lower: Given, upper: Given) -> None:
        lower.train_data_loader = shared
        upper.train_data_loader = [*shared[:4], *batches(8, 3, count=5, seed=9)]

    twins = Twins(bilevel("identity", prepare=prepare))
    twins.step(10)
    twins.assert_equal()
    assert twins.compilation("upper").programs == 2


def rate(engine: Engine) -> None:
    engine["lower"].optimizer.param_groups[0]["lr"] = 0.3


def decay(engine: Engine) -> None:
    engine["lower"].optimizer.param_groups[0]["weight_decay"] = 0.1


@pytest.mark.parametrize(("change", "programs"), [(rate, 1), (decay, 2)])
def test_optimizers_that_methods_read(change: Callable[[Engine], None], programs: int) -> None:
    scheduler = {"scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2)}
    twins = Twins(bilevel("sama", optimizer=ADAM, parts=scheduler, module=lambda: nn.Linear(2, 1)))
    twins.step(6)
    twins.each(change)
    twins.step(6)
    twins.assert_equal()
    assert twins.compilation("upper").programs == programs


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [("sama", ADAM), (CG(2, warm_start=True), partial(torch.optim.SGD, lr=0.05))],
    ids=["optimizer", "memory"],
)
def test_a_state_that_is_loaded(method: Any, optimizer: Any) -> None:
    """Parameters, optimizers and memories are those loaded, learning rates that change after that included."""
    twins = Twins(bilevel(method, optimizer=optimizer, module=lambda: nn.Linear(2, 1)))
    twins.step(6)
    states = [copy.deepcopy(engine.state_dict()) for engine in twins.engines]
    twins.step(5)
    twins.each(lambda engine: engine.load_state_dict(states[twins.engines.index(engine)]))
    twins.step(1)
    twins.each(rate)
    twins.step(2)
    twins.assert_equal()
    twins.assert_compiled()


def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted() -> None:
    build = bilevel(CG(2, warm_start=True), lower=fit, module=lambda: nn.Linear(2, 1))
    whole, resumed = Twins(build), Twins(build)
    whole.step(6)
    state = copy.deepcopy(whole.compiled.state_dict())
    whole.step(6)
    resumed.each(lambda engine: engine.load_state_dict(copy.deepcopy(state)))
    resumed.step(6)
    for name, problem in whole.eager.problems.items():
        for engine in resumed.engines:
            torch.testing.assert_close(engine[name].parameters, problem.parameters, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("method", ["cg", "unroll"])
def test_an_engine_that_nobody_holds_is_gone(method: str) -> None:
    twins = Twins(bilevel(method, unroll_steps=2))
    twins.step(16)
    twins.assert_compiled()
    held = [weakref.ref(thing) for engine in twins.engines for thing in (engine, *engine.problems.values())]
    del twins
    gc.collect()
    assert all(reference() is None for reference in held)
