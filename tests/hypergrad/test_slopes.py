"""Closed forms of an update's derivative, against autograd through the update itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from multilevel.hypergrad.slopes import slope_product
from multilevel.hypergrad.tensors import negative
from multilevel.hypergrad.updates import group_options, optimizer_states, update_rule

from ..conftest import EXACT

OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "maximize": True, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": torch.tensor(0.1, dtype=torch.float64)}),
    (Adam, {"lr": 0.1}),
    (Adam, {"lr": 0.1, "weight_decay": 0.2}),
    (Adam, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
    (Adam, {"lr": torch.tensor(0.1, dtype=torch.float64), "eps": 1e-2}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.2, "betas": (0.5, 0.7)}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
]


@pytest.mark.parametrize("trained", [0, 1, 4])
@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
def test_they_are_the_derivative_of_the_update(
    optimizer_class: type[Optimizer], options: dict[str, Any], trained: int
) -> None:
    parameters = [torch.randn(4, 3, requires_grad=True), torch.randn(5, requires_grad=True)]
    groups: list[dict[str, Any]] = [{"params": [parameters[1]], "lr": 0.03}, {"params": [parameters[0]]}]
    optimizer = optimizer_class(groups, **options)
    for _ in range(trained):
        for p in parameters:
            p.grad = torch.randn_like(p)
        optimizer.step()
    gradients = [torch.randn_like(p).requires_grad_() for p in parameters]
    with torch.no_grad():
        gradients[0][0, 0] = 0.0
    rule, states = update_rule(optimizer, parameters), optimizer_states(optimizer, parameters)
    updated, _ = rule(parameters, gradients, states, group_options(optimizer))
    vector = tuple(torch.randn_like(p) for p in parameters)
    expected = torch.autograd.grad(updated, gradients, vector)
    got = slope_product(rule, parameters, gradients, states, group_options(optimizer), vector)
    torch.testing.assert_close(got, negative(expected), rtol=EXACT, atol=EXACT)


def test_a_gradient_that_always_was_zero_has_the_limit_of_the_update() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = Adam([parameter], lr=0.1, eps=1e-3)
    rule = update_rule(optimizer, [parameter])
    vector = (torch.ones(2),)
    (slope,) = slope_product(rule, [parameter], [torch.zeros(2)], [{}], group_options(optimizer), vector) or [None]
    torch.testing.assert_close(slope, torch.full((2,), 0.1 / 1e-3), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("options", [{"amsgrad": True}])
def test_what_has_no_closed_form_says_so(options: dict[str, Any]) -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = Adam([parameter], lr=0.1, **options)
    rule = update_rule(optimizer, [parameter])
    ones = (torch.ones(2),)
    assert slope_product(rule, [parameter], ones, [{}], group_options(optimizer), ones) is None


def test_parameters_without_a_gradient_are_left_alone() -> None:
    parameters = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    optimizer = SGD(parameters, lr=0.1)
    rule, vector = update_rule(optimizer, parameters), (torch.ones(2), torch.ones(3))
    got = slope_product(rule, parameters, [None, torch.ones(3)], [{}, {}], group_options(optimizer), vector)
    torch.testing.assert_close(got, (torch.zeros(2), torch.full((3,), 0.1)), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_square_too_small_to_be_kept_counts_as_zero(dtype: torch.dtype) -> None:
    """As in the update, whose root has a derivative of zero there: what is left is the mean over eps."""
    size = torch.finfo(dtype).tiny ** 0.7
    parameter, gradient = torch.ones(2, dtype=dtype), torch.full((2,), size, dtype=dtype)
    optimizer = Adam([parameter.requires_grad_()], lr=0.1, eps=1e-3)
    rule, vector = update_rule(optimizer, [parameter]), (torch.ones(2, dtype=dtype),)
    got = slope_product(rule, [parameter], [gradient], [{}], group_options(optimizer), vector)
    torch.testing.assert_close(got, (torch.full((2,), 0.1 / 1e-3, dtype=dtype),))


def test_parameters_that_have_taken_unequally_many_steps() -> None:
    parameters = [torch.randn(3, requires_grad=True) for _ in range(3)]
    optimizer = Adam(parameters, lr=0.1)
    for steps in range(3):  # the first takes three steps, the second two, the last one
        for parameter in parameters[: 3 - steps]:
            parameter.grad = torch.randn(3)
        optimizer.step()
        optimizer.zero_grad()
    gradients, vector = [torch.randn(3).requires_grad_() for _ in range(3)], tuple(torch.randn(3) for _ in range(3))
    rule, states = update_rule(optimizer, parameters), optimizer_states(optimizer, parameters)
    updated, _ = rule(parameters, gradients, states, group_options(optimizer))
    expected = torch.autograd.grad(updated, gradients, vector)
    got = slope_product(rule, parameters, gradients, states, group_options(optimizer), vector)
    torch.testing.assert_close(got, negative(expected), rtol=EXACT, atol=EXACT)
