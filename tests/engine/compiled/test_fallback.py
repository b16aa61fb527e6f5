"""What cannot be compiled runs eagerly, to the same bits, and says once which problem it is and why."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from multilevel.hypergrad.errors import CompileWarning
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.method import ImplicitMethod
from multilevel.hypergrad.tensors import Tensors

from ...givens import Given
from .builds import bilevel, fit
from .solo import base, solo
from .twins import Build, Twins

pytestmark = pytest.mark.usefixtures("recorded")

Step = Callable[[Given, Any], Any]


def appends(problem: Given, batch: Any) -> Tensor:
    problem.events.append("step")
    return base(problem)


def keeps_a_tensor(problem: Given, batch: Any) -> Tensor:
    problem.last = problem.module().detach()
    return base(problem)


def counts(problem: Given, batch: Any) -> Tensor:
    problem.calls += 1
    return base(problem)


def prints(problem: Given, batch: Any) -> Tensor:
    print(end="")
    return base(problem)


def reads_a_metric(problem: Given, batch: Any) -> Any:
    loss = base(problem)
    return {"loss": loss, "shown": loss.item()}


def branches(problem: Given, batch: Any) -> Tensor:
    loss = base(problem)
    return loss if loss > 1 else 2 * loss


def selects(problem: Given, batch: Any) -> Tensor:
    values = problem.module()
    return values[values > 1].square().sum() + base(problem)


def draws_from_numpy(problem: Given, batch: Any) -> Tensor:
    return base(problem) * np.random.rand()


def draws_from_python(problem: Given, batch: Any) -> Tensor:
    return base(problem) * random.random()


def samples(problem: Given, batch: Any) -> Tensor:
    values = problem.module()
    return (values - problem.sample(Normal(values.detach(), 1.0))).square().sum()


def schedules(problem: Given, batch: Any) -> Tensor:
    return base(problem) * 0.9**problem.count


def shows_its_count(problem: Given, batch: Any) -> Any:
    return {"loss": base(problem), "count": problem.count}


def writes(problem: Given, batch: Any) -> Tensor:
    problem.target.add_(1)
    return (problem.module() - problem.target).square().sum()


def assigns(problem: Given, batch: Any) -> Tensor:
    """The tensor is read again in the next step."""
    loss = base(problem) * problem.target.square().sum()
    problem.target.data = problem.target.data + loss.detach() / 10
    return loss


def draws_in_place(problem: Given, batch: Any) -> Tensor:
    """Noise in a tensor that stays."""
    return base(problem) * problem.target.normal_().square().sum()


def reads_an_array(problem: Given, batch: Any) -> Tensor:
    return base(problem) * torch.from_numpy(problem.array).sum()


def reads_a_numpy_number(problem: Given, batch: Any) -> Tensor:
    return base(problem) * problem.array[0]


def draws_at_rates(problem: Given, batch: Any) -> Tensor:
    return base(problem) * torch.empty(2).bernoulli_(problem.target.sigmoid()).sum()


def bypasses(problem: Given, batch: Any) -> Tensor:
    """Reads its parameter where nothing can stand in for it."""
    return base(problem) + problem.captured.square().sum()


REASONS: dict[Step, str] = {
    appends: "training_step changes self.events",
    keeps_a_tensor: "training_step changes self.last",
    counts: "training_step changes self.calls",
    prints: "at test_fallback.py:[0-9]+, .*print",
    reads_a_metric: "numbers are read out of tensors",
    branches: "at test_fallback.py:[0-9]+, .*data-dependent branching",
    selects: "at test_fallback.py:[0-9]+, numbers are read out of tensors",
    draws_from_numpy: "numpy's or Python's random numbers",
    draws_from_python: "numpy's or Python's random numbers",
    samples: "draws choices with self.sample",
    schedules: "a new way each of 6 times: .*self.count",
    shows_its_count: "a new way each of 6 times: .*self.count",
    writes: r"training_step writes to a tensor that stays \(add_\)",
    assigns: "training_step assigns to .data of a tensor that stays",
    draws_in_place: r"training_step writes to a tensor that stays \(normal_\)",
    reads_an_array: "reads a numpy array or number",
    reads_a_numpy_number: "reads a numpy array or number",
    draws_at_rates: r"its random numbers \(bernoulli_\) depend on other tensors",
    bypasses: "a parameter of 'fit' is read other than through that problem's module",
}


def given(step: Step) -> Build:
    return solo(
        step,
        attributes=lambda p: {
            "calls": 0,
            "target": torch.ones(2),
            "array": np.ones(2),
            "captured": p.module.value,
            "last": None,
        },
    )


@pytest.mark.parametrize("step", REASONS, ids=lambda step: step.__name__)
def test_a_step_that_cannot_be_compiled(step: Step) -> None:
    twins = Twins(given(step))
    with pytest.warns(CompileWarning) as caught:
        twins.step(12)
    twins.assert_equal(within=0.0)
    (warning,) = caught
    reason = twins.compilation("fit").reason or ""
    assert str(warning.message) == f"problem 'fit' is not compiled and runs eagerly: {reason}"
    assert re.search(REASONS[step], reason)
    assert twins.compilation("fit").programs == 0


def test_a_step_that_calls_another_problems_is_not_compiled() -> None:
    """The random numbers of the inner one would be drawn as another's."""
    noisy = lambda problem, batch: fit(problem, torch.dropout(batch, 0.5, train=True))  # noqa: E731
    twins = Twins(bilevel("identity", lower=noisy, upper=lambda p, batch: p.lower.training_step(batch)["fit"]))
    with pytest.warns(CompileWarning, match="training_step of 'upper' calls that of 'lower'"):
        twins.step(8)
    twins.assert_equal()


def counting(problem: Given, batch: Any) -> Any:
    problem.calls += 1
    return fit(problem, batch)


def test_what_needs_a_step_that_cannot_be_compiled_is_eager_and_the_rest_is_not() -> None:
    """The upper's derivative evaluates the lower's step, its own loss does not."""
    twins = Twins(bilevel("identity", lower=counting, prepare=lambda lower, upper: setattr(lower, "calls", 0)))
    with pytest.warns(CompileWarning) as caught:
        twins.step()
    twins.assert_equal()
    assert [str(w.message).split(":")[0] for w in caught] == [
        "problem 'lower' is not compiled and runs eagerly",
        "problem 'upper' is compiled but for the derivative through the levels below, which runs eagerly",
    ]
    lower, upper = twins.compilation("lower"), twins.compilation("upper")
    assert (lower.programs, upper.programs) == (0, 1)
    assert (lower.sweep_reason, upper.reason) == (None, None)
    assert lower.reason == "training_step changes self.calls, which a compiled step would not"
    assert upper.sweep_reason == "training_step changes self.lower.calls, which a compiled step would not"


@dataclass(frozen=True)
class Drawing(ImplicitMethod):
    """A method that draws random numbers of its own."""

    name: ClassVar[str] = "drawing"

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return tuple(v * torch.rand(()) for v in vector)


def test_a_method_that_draws_random_numbers() -> None:
    """They are none of the lower's, which a program draws anew as they were at its moment."""
    twins = Twins(bilevel(Drawing(), module=lambda: nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))))
    with pytest.warns(CompileWarning, match="'upper' is compiled but .*drawn outside of training steps"):
        twins.step()
    twins.assert_equal()


@pytest.mark.parametrize("late", [False, True])
def test_hooks_on_gradients_are_called(late: bool) -> None:
    twins = Twins(solo(lambda problem, batch: base(problem)))
    if late:
        twins.step()
        assert twins.compilation("fit").programs == 1
    twins.each(lambda engine: engine["fit"].module.value.register_hook(lambda gradient: gradient / 2))
    with pytest.warns(CompileWarning, match="'fit' is not compiled .*register_hook"):
        twins.step()
    twins.assert_equal()


def test_a_scaled_loss() -> None:
    twins = Twins(solo(lambda problem, batch: base(problem), precision="fp16"))
    with pytest.warns(CompileWarning, match="precision='fp16'"):
        twins.step()
    twins.assert_equal(within=0.0)


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor

    def fails(graph: Any, examples: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(torch._inductor, "standalone_compile", fails)
    twins = Twins(solo(lambda problem, batch: base(problem)))
    with pytest.warns(CompileWarning, match="problem 'fit' is not compiled .*RuntimeError: no C\\+\\+ compiler$"):
        twins.step()
    twins.assert_equal(within=0.0)


def test_a_shape_that_comes_late_is_eager_and_the_others_stay_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [torch.ones(2)] * 6 + [torch.ones(1)] * 8
    twins = Twins(solo(lambda problem, batch: base(problem) * batch.sum(), data=lambda: data))
    twins.step(6)
    left = twins.compiled._stepper._compiled["fit"]
    monkeypatch.setattr(left._pace, "left", lambda *parts: 0.0)
    twins.step(10)
    twins.assert_equal()
    twins.assert_compiled(1)


def test_an_error_of_the_step_itself_is_the_eager_one() -> None:
    def fails(problem: Given, batch: Any) -> Tensor:
        if problem.count == 0:
            raise KeyError("mine")
        return base(problem)

    with pytest.raises(KeyError, match="mine"):
        Twins(solo(fails)).step(1)


def test_without_the_option_nothing_is_compiled() -> None:
    twins = Twins(solo(lambda problem, batch: base(problem)), compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twins.step()
    assert twins.compiled.compilations == {}
