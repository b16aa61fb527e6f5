"""Closed forms of an update's derivative, against autograd through the update itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from multilevel.hypergrad.slopes import slopes
from multilevel.hypergrad.updates import group_options, optimizer_states, update_rule

from ..conftest import EXACT

OPTIMIZERS: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "maximize": True, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": torch.tensor(0.1)}),
    (Adam, {"lr": 0.1}),
    (Adam, {"lr": 0.1, "weight_decay": 0.2}),
    (Adam, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
    (Adam, {"lr": torch.tensor(0.1), "eps": 1e-2}),
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
    expected = torch.autograd.grad(updated, gradients, [torch.ones_like(p) for p in parameters])
    got = slopes(rule, parameters, gradients, states, group_options(optimizer))
    assert got is not None
    for value, tensor in zip(got, expected, strict=True):
        torch.testing.assert_close(value * torch.ones_like(tensor), tensor, rtol=EXACT, atol=EXACT)


def test_a_gradient_that_always_was_zero_has_the_limit_of_the_update() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = Adam([parameter], lr=0.1, eps=1e-3)
    rule = update_rule(optimizer, [parameter])
    (slope,) = slopes(rule, [parameter], [torch.zeros(2)], [{}], group_options(optimizer)) or [None]
    torch.testing.assert_close(slope, torch.full((2,), -0.1 / 1e-3), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("options", [{"amsgrad": True}])
def test_what_has_no_closed_form_says_so(options: dict[str, Any]) -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = Adam([parameter], lr=0.1, **options)
    rule = update_rule(optimizer, [parameter])
    assert slopes(rule, [parameter], [torch.ones(2)], [{}], group_options(optimizer)) is None


def test_parameters_without_a_gradient_are_left_out() -> None:
    parameters = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    optimizer = SGD(parameters, lr=0.1)
    rule = update_rule(optimizer, parameters)
    assert slopes(rule, parameters, [None, torch.ones(3)], [{}, {}], group_options(optimizer)) == [-0.1]
