"""Measure how far single estimates of ``type="reinforce"`` lie from the truth, and write docs/reinforce-variance.md.

    python benchmarks/reinforce_variance.py

Data selection in small: 32 examples, a fifth of them with the wrong sign, weights of a linear model below, and above
one logit an example, the probability that it is kept. Nothing moves (learning rates of zero): each engine step gives
another estimate of the same derivative, whose exact value is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli

from multilevel import Config, Engine, Problem

EXAMPLES, FEATURES = 32, 4
ROWS = [("none", 1), ("ema", 1), ("none", 4), ("ema", 4), ("loo", 4), ("loo", 16)]
PAGE = Path(__file__).parents[1] / "docs" / "reinforce-variance.md"
HEAD = """\
Distance of one estimate from the truth, relative to the truth (root mean square over {steps:,} estimates), of the
derivative with respect to 32 logits; in brackets, the distance of the mean of all estimates from the truth in
standard errors (about 1 where nothing is biased).

| baseline | draws | one loss for the batch | a loss per example |
| --- | --- | --- | --- |
"""


class Measured(NamedTuple):
    """Errors of many estimates.

    Attributes:
        error: Root mean square distance of an estimate from the truth, relative to it.
        bias: Root mean square, over the entries, of the mean's distance from the truth in standard errors.
    """

    error: float
    bias: float


class Weights(nn.Module):
    """A vector."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)


class Model(Problem):
    """Below: least squares on the examples that are kept."""

    def __init__(self, inputs: Tensor, targets: Tensor, per_example: bool, config: Config) -> None:
        module = Weights(torch.linalg.lstsq(inputs, targets).solution / 2)  # halfway through training
        super().__init__("model", module=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.0), config=config)
        self.inputs, self.targets, self.per_example = inputs, targets, per_example

    def training_step(self, batch: Any) -> Any:
        keep = self.sample(Bernoulli(logits=self.selection.module.value))
        losses = keep * (self.inputs @ self.module.value - self.targets).square() / 2
        return {"losses": losses} if self.per_example else losses.mean()


class Selection(Problem):
    """Above: the model's error on clean examples; keeps every gradient that it is given."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        module = Weights(torch.linspace(-1, 1, EXAMPLES))
        super().__init__("selection", module=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.0))
        self.inputs, self.targets = inputs, targets
        self.estimates: list[Tensor] = []

    def training_step(self, batch: Any) -> Tensor:
        return (self.inputs @ self.model.module.value - self.targets).square().mean() / 2

    def grad_callback(self) -> None:
        self.estimates.append(self.module.value.grad.clone())


def measure(baseline: str, samples: int, per_example: bool, steps: int, burn_in: int = 20) -> Measured:
    """Take so many estimates, after a few that the running mean settles on."""
    torch.manual_seed(0)
    truth_weights = torch.randn(FEATURES)
    inputs, clean = torch.randn(EXAMPLES, FEATURES), torch.randn(EXAMPLES, FEATURES)
    signs = torch.where(torch.arange(EXAMPLES) % 5 == 0, -1.0, 1.0)
    config = Config(type="reinforce", reinforce_samples=samples, reinforce_baseline=baseline)
    model = Model(inputs, signs * (inputs @ truth_weights), per_example, config)
    selection = Selection(clean, clean @ truth_weights)
    engine = Engine([selection, model], edges=[(selection, model)])
    for _ in range(burn_in + steps):
        engine.step()
    estimates = torch.stack(selection.estimates[burn_in:]).double()
    expected = _truth(model, selection).double()
    distances = (estimates - expected).square().sum(1).mean().sqrt()
    errors = (estimates.mean(0) - expected) / (estimates.std(0) / steps**0.5)
    return Measured(float(distances / expected.norm()), float(errors.square().mean().sqrt()))


def _truth(model: Model, selection: Selection) -> Tensor:
    """- d/dphi <v, grad E[L]>: the loss is linear in the choices, so that probabilities may stand for them."""
    weights, logits = model.module.value, selection.module.value
    kept = torch.sigmoid(logits)
    expected_loss = (kept * (model.inputs @ weights - model.targets).square() / 2).mean()
    (gradient,) = torch.autograd.grad(expected_loss, weights, create_graph=True)
    above = (selection.inputs @ weights - selection.targets).square().mean() / 2
    (cotangent,) = torch.autograd.grad(above, weights)
    (pulled,) = torch.autograd.grad(gradient @ cotangent, logits)
    return -pulled


def main(steps: int, page: Path) -> None:
    lines = []
    for baseline, samples in ROWS:
        cells = [measure(baseline, samples, per_example, steps) for per_example in (False, True)]
        shown = " | ".join(f"{cell.error:.2f} ({cell.bias:.1f})" for cell in cells)
        lines.append(f"| `{baseline}` | {samples} | {shown} |")
        print(lines[-1], flush=True)
    page.write_text(HEAD.format(steps=steps) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/reinforce-variance.md")
    parser.add_argument("--steps", type=int, default=4000, help="estimates per cell")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    main(arguments.steps, arguments.page)
