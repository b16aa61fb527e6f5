"""A problem: its parts, its name, its neighbours, and what its training step may return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CheckpointWarning, Config, ConfigError, Engine, Problem, ProblemError

from ..givens import Given, Vector, alone, assert_same, pair, square


class Configured(Problem):
    """Everything by ``configure_*``, in the order in which each needs the other."""

    def configure_module(self) -> nn.Module:
        return Vector(2.0)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.module.parameters(), lr=0.5)

    def configure_scheduler(self) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)

    def configure_train_data_loader(self) -> Any:
        return [1.0, 3.0]

    def training_step(self, batch: float) -> Tensor:
        return (self.module() * batch).sum()


def test_parts_from_configure() -> None:
    problem = Configured("p")
    alone(problem, train_iters=3).run()
    assert problem.module().item() == 2 - 0.5 * 1 - 0.25 * 3 - 0.125 * 1
    assert problem.count == 3


def test_parts_from_the_constructor_win() -> None:
    module = Vector(1.0)
    problem = Configured("p", module=module, train_data_loader=[0.0])
    alone(problem, train_iters=3).run()
    assert problem.module is module
    assert module().item() == 1.0


class Bare(Problem):
    def training_step(self, batch: Any) -> Tensor:
        return self.module().sum()


def parts(**changes: Any) -> dict[str, Any]:
    """The parts of a problem that fits, but for the changes."""
    module = Vector(1.0)
    return {"module": module, "optimizer": torch.optim.SGD(module.parameters()), **changes}


def foreign() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.ones(3, requires_grad=True)])


def frozen() -> dict[str, Any]:
    module = Vector(1.0).requires_grad_(False)
    return {"module": module, "optimizer": torch.optim.SGD(module.parameters())}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"problem 'p': no module; pass module=... to its constructor, or override configure_module\(\)"),
        ({"module": Vector(1.0)}, r"problem 'p': no optimizer; .* override configure_optimizer\(\)"),
        (parts(module=torch.ones(2)), "problem 'p': module must be a torch.nn.Module, got Tensor"),
        (parts(optimizer=torch.optim.SGD), "optimizer must be a torch.optim.*Optimizer, got type"),
        (parts(optimizer=foreign()), r"its optimizer holds a parameter of shape \(3,\) that is not its module's"),
        (parts(scheduler=0.1), "scheduler must be a torch.optim.lr_scheduler object, got float"),
        (
            parts(scheduler=torch.optim.lr_scheduler.StepLR(foreign(), 1)),
            r"its scheduler is over another optimizer \(Adam\) than its own \(SGD\)",
        ),
        (parts(train_data_loader=3), "problem 'p': train_data_loader must be an iterable"),
        (frozen(), "problem 'p': nothing to train"),
    ],
)
def test_parts_that_are_missing_or_do_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        alone(Bare("p", **given))


def test_config_must_be_a_config() -> None:
    with pytest.raises(ConfigError, match="problem 'p': config must be a Config, got dict"):
        Bare("p", config={"type": "cg"})  # type: ignore[arg-type]


def test_training_step_is_abstract() -> None:
    with pytest.raises(TypeError, match="training_step"):
        Problem("p")  # type: ignore[abstract]


def test_what_needs_an_engine_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"problem 'p' is in no engine yet: pass it to Engine\(\[...\]\), or call bind"
    ):
        _ = Given("p", square).parameters


class Layers(nn.Module):
    """A frozen backbone, a head, and a decoder that shares the head's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head, self.decoder = (nn.Linear(2, 2) for _ in range(3))
        self.decoder.weight = self.head.weight
        self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.head(self.backbone(x)).tanh())


def shrinking(problem: Given, batch: Any) -> Tensor:
    return problem.module(torch.ones(3, 2)).square().mean() * problem.upper().exp().sum()


def fitting(problem: Given, batch: Any) -> Tensor:
    return (problem.lower(torch.ones(3, 2)) - 1).square().mean()


@pytest.mark.parametrize("method", ["darts", "neumann", "cg", "exact"])
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
def test_frozen_parameters_stay_frozen_and_tied_ones_tied(method: str) -> None:
    module = Layers()
    before = module.backbone.weight.clone()
    engine = pair(shrinking, fitting, method=method, modules=(module, None))
    lower = engine["lower"]
    assert len(lower.parameters) == 3  # one weight for head and decoder, and two biases
    for _ in range(3):
        engine.step()
    assert torch.equal(module.backbone.weight, before)
    assert module.backbone.weight.grad is None
    assert module.decoder.weight is module.head.weight
    assert len(engine.hypergradient("lower")) == 3


@pytest.mark.parametrize("method", ["darts", "neumann", "cg", "exact"])
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
def test_an_optimizer_over_a_subset_trains_that_subset(method: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    still = module[0].weight.detach().clone()
    low = Given(
        "lower",
        shrinking,
        module,
        optimizer=torch.optim.SGD(module[1].parameters(), lr=0.1),
        config=Config(type=method),
    )
    engine = Engine([low, Given("upper", fitting)], edges=[("upper", "lower")])
    engine.step()
    assert low.parameters == tuple(module[1].parameters())
    assert torch.equal(module[0].weight, still)


@pytest.mark.parametrize("method", ["darts", "neumann", "cg", "exact"])
def test_losses_in_mappings_at_both_levels(method: str) -> None:
    def wrapped(loss: Any) -> Any:
        return lambda p, b: {"loss": loss(p, b), "accuracy": 0.5, "norm": p.module().norm(), "outputs": None}

    losses = (lambda p, b: (p.module() - p.upper()).square().sum() / 2, lambda p, b: p.lower().square().sum())
    plain, mapped = pair(*losses, method=method), pair(*map(wrapped, losses), method=method)
    assert_same(mapped.hypergradient("upper"), plain.hypergradient("upper"))
    for engine in (plain, mapped):
        engine.step()
    assert_same(mapped["upper"].module.state_dict(), plain["upper"].module.state_dict())
    shown = mapped.last_metrics["lower"]
    assert list(shown) == ["loss", "accuracy", "norm"]
    assert shown["accuracy"].item() == 0.5
    assert not any(value.requires_grad for value in shown.values())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"problem 'p': training_step must return a scalar tensor.*got None \(is a return missing\?\)"),
        (1.0, "got float"),
        ({"accuracy": 1.0}, r"a mapping without 'loss', with keys \['accuracy'\]"),
        ({"loss": None}, r"got None"),
        (torch.ones(3, requires_grad=True), r"the loss must be a scalar, got a tensor of shape \(3,\).*\.mean\(\)"),
        ({"loss": torch.ones(2, 1, requires_grad=True)}, r"got a tensor of shape \(2, 1\)"),
        (
            {"loss": torch.ones((), requires_grad=True), "name": "abc"},
            "the metric 'name' must be a tensor or a number, got str",
        ),
    ],
)
def test_results_that_are_no_loss(result: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        alone(Given("p", lambda p, b: result)).step()


def test_a_loss_of_one_entry_counts_as_a_scalar() -> None:
    engine = alone(Given("p", lambda p, b: p.module().square() / 2))
    engine.step()
    assert engine.last_metrics["p"]["loss"].shape == ()


class Wrong(Given):
    def trainable_parameters(self) -> Any:
        return self.wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([torch.ones(2, requires_grad=True)], r"a tensor of shape \(2,\) that is not a parameter of its module"),
        ([torch.ones(2)], "must return leaf tensors that require gradients"),
        (["weight"], "must return leaf tensors.*got str"),
        ([], "nothing to train"),
    ],
)
def test_trainable_parameters_of_the_users_own(wrong: Any, message: str) -> None:
    problem = Wrong("p", square)
    problem.wrong = wrong
    with pytest.raises(ConfigError, match=message):
        alone(problem)


def test_a_memory_that_cannot_be_written_is_warned_of_and_the_rest_is_kept() -> None:
    class Remembering(Given):
        def get_extra_state(self) -> Any:
            return {"open": open}

    engine = alone(Remembering("p", square))
    with pytest.warns(CheckpointWarning, match=r"problem 'p': what its get_extra_state\(\) returned is not kept"):
        state = engine.state_dict()
    again = alone(Given("p", square))
    again.load_state_dict(state)
    assert_same(again["p"].module.state_dict(), engine["p"].module.state_dict())
