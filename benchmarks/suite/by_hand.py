"""Hypergradients as one writes them into a training loop, on lists of tensors and nothing else.

The same mathematics as the library's methods of these names, without their checks. Each takes the gradient of the lower
loss (with its graph where it is differentiated again) or a function that evaluates that loss, and gives
- (d2L / d upper d lower) P v for its approximation P of the inverse Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

List = Sequence[Tensor]
Loss = Callable[[], Tensor]


def set_gradients(parameters: List, gradients: Sequence[Tensor | None]) -> None:
    """Give gradients to an optimizer."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def dot(x: List, y: List) -> Tensor:
    """Inner product."""
    return torch.stack([torch.dot(a.view(-1), b.view(-1)) for a, b in zip(x, y, strict=True)]).sum()


def darts(loss: Loss, lower: List, upper: List, v: Sequence[Tensor], alpha: float = 0.01) -> list[Tensor]:
    """A central difference of the upper gradient, the lower parameters moved in place and back; writes to ``v``."""
    length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(v)))
    # A number where reading one is free; a GPU would be waited for.
    radius = alpha / (length.item() if length.device.type == "cpu" else length)
    torch._foreach_mul_(v, radius)
    for parameter in lower:  # no graph is built for them
        parameter.requires_grad_(False)
    torch._foreach_add_(lower, v)
    plus = torch.autograd.grad(loss(), upper)
    torch._foreach_sub_(lower, v, alpha=2.0)
    minus = torch.autograd.grad(loss(), upper)
    torch._foreach_add_(lower, v)
    for parameter in lower:
        parameter.requires_grad_()
    result = torch._foreach_sub(minus, plus)
    torch._foreach_mul_(result, 0.5 / radius)
    return list(result)


def adam_slope(optimizer: Optimizer, lower: List, gradients: List) -> list[Tensor]:
    """- d theta' / d g of Adam's next step, entry by entry: what sama multiplies v by."""
    group = optimizer.param_groups[0]
    (beta1, beta2), lr, eps = group["betas"], group["lr"], group["eps"]
    states = [optimizer.state[p] for p in lower]
    count = states[0]["step"].item() + 1
    mean = torch._foreach_mul([s["exp_avg"] for s in states], beta1)
    torch._foreach_add_(mean, gradients, alpha=1 - beta1)
    square = torch._foreach_mul([s["exp_avg_sq"] for s in states], beta2)
    torch._foreach_addcmul_(square, gradients, gradients, value=1 - beta2)
    root = torch._foreach_sqrt(square)
    correction = (1 - beta2**count) ** 0.5
    denominator = torch._foreach_div(root, correction)
    torch._foreach_add_(denominator, eps)
    # d(mean / denominator)/dg = (1 - beta1) / denominator - mean (1 - beta2) g / (root correction denominator^2)
    torch._foreach_mul_(mean, gradients)
    torch._foreach_mul_(mean, -(1 - beta2) / correction)
    # A square that is zero has a gradient that is zero: there the second term is zero, not 0 / 0.
    torch._foreach_clamp_min_(root, torch.finfo(root[0].dtype).tiny)
    torch._foreach_div_(mean, root)
    torch._foreach_div_(mean, denominator)
    torch._foreach_add_(mean, 1 - beta1)
    torch._foreach_div_(mean, denominator)
    torch._foreach_mul_(mean, lr / (1 - beta1**count))
    return list(mean)


def sama(
    loss: Loss, lower: List, upper: List, v: Sequence[Tensor], optimizer: Optimizer, alpha: float = 0.01
) -> list[Tensor]:
    """:func:`darts` of v times the derivative of Adam's next step."""
    gradients = torch.autograd.grad(loss(), lower)
    with torch.no_grad():
        direction = torch._foreach_mul(adam_slope(optimizer, lower, gradients), v)
    return darts(loss, lower, upper, direction, alpha)


def identity(loss: Loss, lower: List, upper: List, v: Sequence[Tensor]) -> list[Tensor]:
    """v itself."""
    return mixed(torch.autograd.grad(loss(), lower, create_graph=True), upper, v)


def neumann(loss: Loss, lower: List, upper: List, v: Sequence[Tensor], iterations: int, alpha: float) -> list[Tensor]:
    """alpha times the first ``iterations + 1`` terms of the series of (I - alpha H)."""
    gradients = torch.autograd.grad(loss(), lower, create_graph=True)
    total, term = [t.clone() for t in v], [t.clone() for t in v]
    for _ in range(iterations):
        image = torch.autograd.grad(gradients, lower, term, retain_graph=True)
        torch._foreach_add_(term, image, alpha=-alpha)
        torch._foreach_add_(total, term)
    torch._foreach_mul_(total, alpha)
    return mixed(gradients, upper, total)


def cg(loss: Loss, lower: List, upper: List, v: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """Conjugate gradient, until the residual is a rounding error of v; stops the run where H is not positive definite.

    There the library's cg would end early, and do less than what it is compared with.
    """
    gradients = torch.autograd.grad(loss(), lower, create_graph=True)
    solution = [torch.zeros_like(t) for t in v]
    residual, direction = [t.clone() for t in v], [t.clone() for t in v]
    squared = dot(v, v).item()
    smallest = squared * torch.finfo(v[0].dtype).eps ** 2
    for _ in range(iterations):
        if squared <= smallest:
            break
        image = torch.autograd.grad(gradients, lower, direction, retain_graph=True)
        curvature = dot(direction, image).item()
        if curvature <= 0:
            raise ArithmeticError(f"cg: negative curvature, {curvature:.2g}")
        step = squared / curvature
        torch._foreach_add_(solution, direction, alpha=step)
        torch._foreach_add_(residual, image, alpha=-step)
        previous, squared = squared, dot(residual, residual).item()
        torch._foreach_mul_(direction, squared / previous)
        torch._foreach_add_(direction, residual)
    return mixed(gradients, upper, solution)


def mixed(gradients: List, upper: List, v: List) -> list[Tensor]:
    """- (d2L / d upper d lower) v; frees the graph of the gradients."""
    return list(torch._foreach_neg(torch.autograd.grad(gradients, upper, v)))
