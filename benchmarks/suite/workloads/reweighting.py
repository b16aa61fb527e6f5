"""W2, W3, W4: Meta-Weight-Net on digits, 40 % of their labels redrawn; an MLP below, a net of its losses above.

One step below, on a batch, for each step above, on a batch of others. W3 is W2 with a wider MLP. In W4 the MLP is also
drawn back to where it started (as in iMAML), so that its Hessian is positive definite and every solver takes all its
steps: without that, cg meets negative curvature at once.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from ..approaches import DARTS, IDENTITY, SAMA, UNROLL, cg, neumann
from ..bilevel import Bilevel
from ..case import Row, Setting
from ..data import CLASSES, PIXELS, Batch, cut, digits
from ..rows import bilevel_row

RATE, UPPER_RATE, PULL = 0.1, 1e-2, 1.0
ADAM = {"lr": 1e-3, "eps": 1e-4}
"""Its default eps of 1e-8 makes a rounding error of the gradient a whole step, and nothing would agree in float32."""
NOISE = 0.4


def mlp(widths: list[int], setting: Setting) -> nn.Sequential:
    """Linear layers with ReLU between them; the same parameters at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).to(setting.device, setting.dtype)


def weight_net(setting: Setting) -> nn.Sequential:
    """1-100-1, with weights between 0 and 1."""
    return nn.Sequential(*mlp([1, setting.pick(100, tiny=8), 1], setting), nn.Sigmoid())


def applied(parameters: Any) -> Any:
    """:func:`mlp` as a function of its parameters."""

    def forward(inputs: Tensor) -> Tensor:
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            inputs = F.relu(F.linear(inputs, weight, bias))
        return F.linear(inputs, parameters[-2], parameters[-1])

    return forward


def weighted(model: Any, weights: Any, batch: Batch) -> Tensor:
    """The lower loss: each sample's loss times what the net above makes of that loss."""
    inputs, labels = batch
    losses = F.cross_entropy(model(inputs), labels, reduction="none")
    return (weights(losses.detach().unsqueeze(-1)).squeeze(-1) * losses).mean()


def clean(model: Any, batch: Batch) -> Tensor:
    """The upper loss."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def pulled(start: list[Tensor], pull: float, model: Any, weights: Any, batch: Batch) -> Tensor:
    """:func:`weighted`, and the square of the distance from the start."""
    moved = torch.stack([(p - s).square().sum() for p, s in zip(model.parameters(), start, strict=True)])
    return weighted(model, weights, batch) + pull / 2 * moved.sum()


def in_jax(start: list[Tensor] | None, jax: Any) -> Any:
    """The losses once more."""
    numpy = jax.numpy

    def forward(parameters: Any, inputs: Any) -> Any:
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            inputs = jax.nn.relu(inputs @ weight.T + bias)
        return inputs @ parameters[-2].T + parameters[-1]

    def losses(lower: Any, batch: Any) -> Any:
        logits = jax.nn.log_softmax(forward(lower, batch[0]))
        return -numpy.take_along_axis(logits, batch[1][:, None], axis=1)[:, 0]

    def lower_loss(lower: Any, upper: Any, batch: Any) -> Any:
        each = losses(lower, batch)
        loss = (jax.nn.sigmoid(forward(upper, jax.lax.stop_gradient(each)[:, None]))[:, 0] * each).mean()
        for parameter, origin in zip(lower, start or (), strict=start is not None):
            loss += PULL / 2 * ((parameter - numpy.asarray(origin.numpy())) ** 2).sum()
        return loss

    return lower_loss, lambda lower, batch: losses(lower, batch).mean()


def problem(setting: Setting, *, hidden: list[int], batch: int, adam: bool = False, pull: bool = False) -> Bilevel:
    """Meta-Weight-Net over an MLP.

    Args:
        setting: Where and at which size.
        hidden: Widths of the MLP's hidden layers.
        batch: Samples in a batch.
        adam: Train the MLP by Adam, instead of gradient descent.
        pull: Draw it back to where it started.
    """
    build = partial(mlp, [PIXELS, *hidden, CLASSES], setting)
    start = [p.detach() for p in build().parameters()] if pull else None

    def batches() -> tuple[list[Batch], list[Batch]]:
        noisy, held_out = digits(setting, flip=NOISE)
        return cut(noisy, batch), cut(held_out, batch)

    return Bilevel(
        setting=setting,
        lower=build,
        upper=partial(weight_net, setting),
        lower_loss=weighted if start is None else partial(pulled, start, PULL),
        upper_loss=clean,
        lower_optimizer=partial(Adam, **ADAM) if adam else partial(SGD, lr=RATE),
        # Not Adam: its first steps are of one length, whether the gradient is large or a rounding error.
        upper_optimizer=partial(SGD, lr=UPPER_RATE),
        batches=batches,
        applied=applied,
        in_jax=partial(in_jax, start),
    )


def rows(setting: Setting) -> list[Row]:
    """W2, an MLP 64-256-256-10; sama with Adam below, the others with gradient descent."""
    return _plain_rows("W2", setting, hidden=[setting.pick(256, tiny=8)] * 2, batch=100)


def wide_rows(setting: Setting) -> list[Row]:
    """W3, an MLP of 3.2 million parameters, or 100 million."""
    hidden = [setting.pick(1024, 5760, tiny=8)] * 4
    return _plain_rows("W3", setting, hidden=hidden, batch=setting.pick(100, 4096, tiny=100))


def _plain_rows(workload: str, setting: Setting, **model: Any) -> list[Row]:
    descent, adam = problem(setting, **model), problem(setting, **model, adam=True)
    approaches = ((descent, DARTS), (descent, IDENTITY), (adam, SAMA), (descent, UNROLL))
    return [bilevel_row(workload, bilevel, approach) for bilevel, approach in approaches]


def solver_rows(setting: Setting) -> list[Row]:
    """W4, W2's MLP by solvers."""
    bilevel = problem(setting, hidden=[setting.pick(256, tiny=8)] * 2, batch=100, pull=True)
    return [bilevel_row("W4", bilevel, approach, error=True) for approach in (neumann(5, RATE), cg(5))]
