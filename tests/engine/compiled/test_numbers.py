"""A compiled engine takes the eager engine's steps: gradients, metrics, states and random numbers are the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, GMRES, MINRES, Neumann, Nystrom
from multilevel.hypergrad.errors import CompileWarning
from multilevel.hypergrad.registry import available

from ...givens import Given
from .builds import bilevel, fit, hierarchy, judge
from .twins import STEPS, Build, Twins

pytestmark = [pytest.mark.usefixtures("recorded"), pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")]

ADAM, ADAMW = partial(torch.optim.Adam, lr=0.01), partial(torch.optim.AdamW, lr=0.01)
MOMENTUM = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True)
COMPILED: dict[str, tuple[Any, dict[str, Any]]] = {
    "darts": ("darts", {}),
    "identity": ("identity", {}),
    "neumann": (Neumann(3, 0.1), {}),
    "neumann ggn": (Neumann(2, 0.1, curvature="ggn"), {}),
    "cg": (CG(3), {}),
    "cg damped": (CG(3, damping=0.5), {}),
    "cg warm": (CG(3, warm_start=True), {}),
    "sama adam": ("sama", {"optimizer": ADAM}),
    "sama adamw": ("sama", {"optimizer": ADAMW}),
    "sama momentum": ("sama", {"optimizer": MOMENTUM}),
}
EAGER: dict[str, tuple[Any, str]] = {
    "minres": (MINRES(3), "minres looks at numbers"),
    "gmres": (GMRES(3), "gmres looks at numbers"),
    "exact": ("exact", "."),
    "nystrom": (Nystrom(2), "."),
    "neumann": (Neumann(2, alpha="auto"), "another at each of them"),
}


def built(problem: str, method: Any, **parts: Any) -> Build:
    if problem != "bilevel":
        return hierarchy(problem, method, **parts)
    lower = fit if getattr(method, "curvature", "") != "ggn" else fit_with_outputs
    return bilevel(method, lower=lower, **parts)


def fit_with_outputs(problem: Given, batch: Tensor) -> Any:
    outputs = problem.module(batch[:, :2])
    return {"loss": (outputs - batch[:, 2:]).square().mean() * problem.upper().exp().mean(), "outputs": outputs}


def test_no_method_is_left_out() -> None:
    builtin = {name for name, cls in available().items() if cls.__module__.startswith("multilevel.")}
    assert builtin == {key.split()[0] for key in (*COMPILED, *EAGER)} | {"reinforce", "unroll"}


def often(known: dict[str, Any], *keys: str) -> list[Any]:
    """All, of which only some are tried in the quick suite."""
    return [key if key in keys else pytest.param(key, marks=pytest.mark.slow) for key in known]


@pytest.mark.parametrize("key", often(COMPILED, "neumann ggn", "cg warm", "sama adam"))
def test_two_levels(key: str) -> None:
    method, parts = COMPILED[key]
    twins = Twins(built("bilevel", method, **parts))
    twins.step(8)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.parametrize(("problem", "method"), [("chain", "identity"), ("diamond", "darts")])
def test_more_levels(problem: str, method: Any) -> None:
    twins = Twins(hierarchy(problem, method))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.slow
@pytest.mark.parametrize("response", ["total", "direct"])
@pytest.mark.parametrize("problem", ["chain", "diamond"])
@pytest.mark.parametrize("key", [key for key in COMPILED if "ggn" not in key])
def test_every_method_at_any_depth(key: str, problem: str, response: str) -> None:
    method, parts = COMPILED[key]
    twins = Twins(hierarchy(problem, method, **parts), response=response)
    twins.step(8)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.parametrize("key", often(EAGER, "minres", "neumann"))
def test_a_method_that_has_no_program_runs_eagerly_and_the_loss_does_not(key: str) -> None:
    method, reason = EAGER[key]
    twins = Twins(bilevel(method))
    with pytest.warns(CompileWarning, match=f"'upper' is compiled but for the derivative .* eagerly: .*{reason}"):
        twins.step(15)
    twins.assert_equal()
    twins.assert_compiled()
    assert twins.compilation("upper").sweep_reason


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))


def noisy(problem: Given, batch: Tensor) -> Any:
    return judge(problem, batch + torch.rand_like(batch) / 10)


def test_random_numbers_are_those_of_the_eager_step() -> None:
    twins = Twins(bilevel("identity", module=dropping, upper=noisy))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()


def normalizing() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))


def test_running_statistics_are_those_of_the_eager_step() -> None:
    twins = Twins(bilevel("identity", module=normalizing))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()
    assert twins.compiled["lower"].module[1].num_batches_tracked == 2 * STEPS  # once by each level's steps


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation": 2, "gradient_clipping": 0.1},
        {"unroll_steps": 3, "warmup_steps": 2},
        {"precision": "bf16"},
    ],
    ids=repr,
)
def test_settings_of_a_problem(settings: dict[str, Any]) -> None:
    twins = Twins(bilevel("identity", **settings))
    twins.step(24)
    twins.assert_equal()
    twins.assert_compiled()


class Edits(Given):
    """Changes its gradients before they are used."""

    def grad_callback(self) -> None:
        for parameter in self.parameters:
            parameter.grad.mul_(0.5)


def test_roll_back_schedulers_and_edited_gradients() -> None:
    step_lr = {"scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3)}
    twins = Twins(bilevel("darts", classes=(Edits, Given), parts=step_lr, unroll_steps=2), roll_back=True)
    twins.step(12)
    twins.assert_equal()
    twins.assert_compiled()


def test_the_weight_decay_of_an_optimizer_is_part_of_the_hessian() -> None:
    twins = Twins(bilevel("cg", optimizer=lambda p: torch.optim.SGD(list(p), lr=0.1, weight_decay=0.3)))
    twins.step()
    for engine in twins.engines:
        engine["lower"].optimizer.param_groups[0]["weight_decay"] = 0.1
    twins.step()
    twins.assert_equal()
    compilations = twins.compiled.compilations
    assert {name: c.programs for name, c in compilations.items()} == {"lower": 1, "upper": 2}
    assert compilations["upper"].sweep_reason is None


def test_an_optimizer_that_asks_again() -> None:
    twins = Twins(bilevel("identity", optimizer=lambda p: torch.optim.LBFGS(list(p), lr=0.1, max_iter=3)))
    twins.step()
    twins.assert_equal()
    twins.assert_compiled()


def test_metrics_take_part_in_no_graph() -> None:
    """A metric that is part of a parameter is one in the compiled step too."""

    def shows(problem: Given, batch: Tensor) -> Any:
        return {**fit(problem, batch), "bias": problem.module[0].bias[0]}

    twins = Twins(bilevel(lower=shows))
    twins.step()
    twins.assert_compiled()
    assert not any(metric.requires_grad for metric in twins.compiled.last_metrics["lower"].values())
