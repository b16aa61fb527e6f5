"""Update rules: equal to torch.optim step for step, differentiable, and nothing else is accepted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.tensors import Tensors
from multilevel.hypergrad.updates import group_options, optimizer_states, update_rule

SAME_ARITHMETIC = 1e-14
"""The same operations in float64, up to their order."""

OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    (Adam, {"lr": 0.1}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    (Adam, {"lr": 0.1, "amsgrad": True, "betas": (0.5, 0.3)}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.3}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    (RMSprop, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.7, "eps": 1e-3}),
    (RMSprop, {"lr": 0.01, "centered": True, "maximize": True}),
    (RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    (Adagrad, {"lr": 0.1}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3}),
    (Adagrad, {"lr": 0.1, "maximize": True}),
]
IDS = [f"{c.__name__}-{'-'.join(k for k in o if k != 'lr') or 'plain'}" for c, o in OPTIMIZERS]
every_optimizer = pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS, ids=IDS)


def two_groups(optimizer_class: type[Optimizer], options: dict[str, Any]) -> tuple[Optimizer, list[Tensor]]:
    """Three parameters, the first and the last in one group, the middle one in a group before it."""
    parameters = [torch.randn(4, 3), torch.randn(()), torch.randn(3)]
    first, middle, last = parameters
    groups: list[dict[str, Any]] = [{"params": [middle], "lr": 0.03, "weight_decay": 0.2}, {"params": [last, first]}]
    return optimizer_class(groups, **options), parameters


@every_optimizer
def test_rule_equals_torch_step_for_step(optimizer_class: type[Optimizer], options: dict[str, Any]) -> None:
    optimizer, parameters = two_groups(optimizer_class, options)
    rule = update_rule(optimizer, parameters)
    values, states = tuple(p.clone() for p in parameters), optimizer_states(optimizer, parameters)
    for step in range(7):
        gradients = tuple(torch.randn_like(p) for p in parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.param_groups[1]["lr"] = 0.1 / (1 + step)  # a schedule
        values, states = rule(values, gradients, states, group_options(optimizer))
        optimizer.step()
        for value, state, parameter in zip(values, states, parameters, strict=True):
            torch.testing.assert_close(value, parameter, rtol=SAME_ARITHMETIC, atol=SAME_ARITHMETIC)
            torch.testing.assert_close(state, optimizer.state[parameter], rtol=SAME_ARITHMETIC, atol=SAME_ARITHMETIC)


@every_optimizer
def test_rule_goes_on_from_a_live_optimizer(optimizer_class: type[Optimizer], options: dict[str, Any]) -> None:
    optimizer, parameters = two_groups(optimizer_class, options)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    gradients = tuple(torch.randn_like(p) for p in parameters)
    states, before = optimizer_states(optimizer, parameters), [p.clone() for p in parameters]
    values, _ = update_rule(optimizer, parameters)(parameters, gradients, states, group_options(optimizer))
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    torch.testing.assert_close(values, tuple(parameters), rtol=SAME_ARITHMETIC, atol=SAME_ARITHMETIC)


@every_optimizer
def test_rule_is_differentiable(optimizer_class: type[Optimizer], options: dict[str, Any]) -> None:
    """Three steps as a function of start and gradients, twice, against finite differences of the same function."""
    parameters = [torch.randn(2), torch.randn(())]
    optimizer = optimizer_class(parameters, **options)
    rule, states = update_rule(optimizer, parameters), optimizer_states(optimizer, parameters)
    gradients = [torch.randn(2) for _ in range(3)]

    def program(start: Tensor, *gradients: Tensor) -> Tensor:
        values: Tensors = (start, start.sum())
        state = states
        for gradient in gradients:
            values, state = rule(values, (gradient, gradient.prod()), state, group_options(optimizer))
        return values[0] + values[1]

    inputs = [t.requires_grad_() for t in (torch.randn(2), *gradients)]
    assert torch.autograd.gradcheck(program, inputs)
    assert torch.autograd.gradgradcheck(program, inputs)


@every_optimizer
def test_a_gradient_of_exactly_zero_has_finite_derivatives(
    optimizer_class: type[Optimizer], options: dict[str, Any]
) -> None:
    parameters = [torch.randn(3)]
    optimizer = optimizer_class(parameters, **{**options, "weight_decay": 0.0})
    gradient = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    rule = update_rule(optimizer, parameters)
    values, states = tuple(parameters), optimizer_states(optimizer, parameters)
    for _ in range(2):
        values, states = rule(values, (gradient,), states, group_options(optimizer))
    (derivative,) = torch.autograd.grad(values[0].sum(), gradient, create_graph=True)
    # SGD's derivative is constant; the sum keeps a path to the gradient there.
    (second,) = torch.autograd.grad(derivative.sum() + gradient.sum(), gradient)
    assert derivative.isfinite().all()
    assert second.isfinite().all()
    assert values[0].isfinite().all()


def test_the_derivative_at_a_gradient_of_zero_is_that_of_the_quotient() -> None:
    """Adam's first step, theta - lr g / (|g| + eps), has the derivative - lr / eps at g = 0."""
    parameters = [torch.zeros(1)]
    optimizer = Adam(parameters, lr=0.1, eps=1e-2)
    gradient = torch.zeros(1, requires_grad=True)
    (value,), _ = update_rule(optimizer, parameters)(parameters, (gradient,), ({},), group_options(optimizer))
    (derivative,) = torch.autograd.grad(value, gradient)
    torch.testing.assert_close(derivative, torch.tensor([-10.0]), rtol=SAME_ARITHMETIC, atol=0)


def test_a_learning_rate_may_be_a_tensor_and_is_differentiated() -> None:
    parameters = [torch.ones(2)]
    optimizer = SGD(parameters, lr=torch.tensor(0.1))
    (options,) = group_options(optimizer)
    assert options["lr"] is not optimizer.param_groups[0]["lr"]
    lr = torch.tensor(0.1, requires_grad=True)
    rule = update_rule(optimizer, parameters)
    (value,), _ = rule(parameters, (torch.tensor([2.0, 3.0]),), ({},), ({**options, "lr": lr},))
    (derivative,) = torch.autograd.grad(value.sum(), lr)
    assert derivative.item() == pytest.approx(-5.0, rel=SAME_ARITHMETIC)


def test_parameters_without_gradient_or_optimizer_stay() -> None:
    parameters = [torch.ones(1), torch.ones(1), torch.ones(1)]
    optimizer = SGD(parameters[:2], lr=0.1, weight_decay=0.5, momentum=0.9)
    rule = update_rule(optimizer, parameters)
    values, states = rule(parameters, (torch.ones(1), None, torch.ones(1)), ({}, {}, {}), group_options(optimizer))
    assert [v.item() for v in values] == [pytest.approx(0.85), 1.0, 1.0]
    assert [bool(s) for s in states] == [True, False, False]


class _OwnStep(SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class _SameStep(AdamW):
    pass


@pytest.mark.parametrize("optimizer_class", [torch.optim.NAdam, torch.optim.Adadelta, _OwnStep])
def test_an_unsupported_optimizer_is_refused_by_name(optimizer_class: type[Optimizer]) -> None:
    parameters = [torch.ones(1)]
    optimizer = optimizer_class(parameters)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=rf"{optimizer_class.__qualname__} .* Adagrad, Adam, AdamW, RMSprop, SGD"):
        update_rule(optimizer, parameters)


def test_a_subclass_with_the_same_step_is_accepted() -> None:
    parameters = [torch.ones(1)]
    rule = update_rule(_SameStep(parameters, lr=0.1), parameters)
    assert rule == update_rule(AdamW(parameters, lr=0.1), parameters)


def test_reading_the_state_leaves_no_trace() -> None:
    parameters = [torch.ones(1)]
    optimizer = Adam(parameters)
    assert optimizer_states(optimizer, parameters) == ({},)
    assert not optimizer.state
