"""W7: Meta-Weight-Net over a transformer with AdamW, which reads digits pixel by pixel.

At the large size it is as large as BERT-base, reads random tokens and computes in bfloat16. For cg it is drawn back to
where it started, as the MLP of W4.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from ..approaches import SAMA, cg
from ..bilevel import Bilevel
from ..case import Row, Setting
from ..data import CLASSES, PIXELS, SHADES, Batch, cut, digit_tokens
from ..rows import bilevel_row
from .reweighting import ADAM, NOISE, UPPER_RATE, clean, pulled, weight_net, weighted

PULL = 10.0
VOCABULARY, LENGTH = 30522, 128


class Block(nn.Module):
    """Attention, spelled out since it is differentiated twice, and two linear layers; each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        projected = self.project(self.before_attention(states))
        query, key, value = projected.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width)
        states = states + self.merge(mixed)
        return states + self.layers(self.before_layers(states))


class Transformer(nn.Module):
    """Tokens to classes, by the mean over positions."""

    def __init__(self, *, vocabulary: int, length: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm, self.classify = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classify(self.norm(self.blocks(self.tokens(tokens) + self.positions)).mean(1))


def transformer(setting: Setting) -> Transformer:
    """Two layers of 64 (0.1 million parameters), or BERT-base's twelve of 768 (110 million)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(
            vocabulary=setting.pick(SHADES, VOCABULARY, tiny=SHADES),
            length=setting.pick(PIXELS, LENGTH, tiny=PIXELS),
            width=setting.pick(64, 768, tiny=8),
            heads=setting.pick(4, 12, tiny=2),
            depth=setting.pick(2, 12, tiny=1),
        ).to(setting.device, setting.dtype)


def batches(setting: Setting) -> tuple[list[Batch], list[Batch]]:
    """Of 16 digits, or of 32 times 128 random tokens."""
    if setting.large and not setting.tiny:
        return _random_batches(setting, seed=0), _random_batches(setting, seed=1)
    noisy, held_out = digit_tokens(setting, flip=NOISE)
    size = setting.pick(16, tiny=4)
    return cut(noisy, size), cut(held_out, size)


def _random_batches(setting: Setting, seed: int, count: int = 8, size: int = 32) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (count, size, LENGTH), generator=generator)
    labels = torch.randint(CLASSES, (count, size), generator=generator)
    return list(zip(tokens.to(setting.device), labels.to(setting.device), strict=True))


def problem(setting: Setting, *, pull: bool) -> Bilevel:
    """What W7 solves.

    Args:
        setting: Where and at which size.
        pull: Draw the transformer back to where it started.
    """
    build = partial(transformer, setting)
    lower_loss: Any = partial(pulled, [p.detach() for p in build().parameters()], PULL) if pull else weighted
    return Bilevel(
        setting=setting,
        lower=build,
        upper=partial(weight_net, setting),
        lower_loss=lower_loss,
        upper_loss=clean,
        lower_optimizer=partial(AdamW, **ADAM),
        upper_optimizer=partial(SGD, lr=UPPER_RATE),
        batches=partial(batches, setting),
        reduced=setting.large and setting.dtype == torch.float32,
    )


def rows(setting: Setting) -> list[Row]:
    """sama and cg."""
    return [
        bilevel_row("W7", problem(setting, pull=False), SAMA),
        bilevel_row("W7", problem(setting, pull=True), cg(5), error=True),
    ]
