"""What a new program finds, beside what the eager step finds on the same batch: it is used once the two agree.

A program repeats what was recorded. Whatever recording could not know (a constant that is another by now, numbers of a
generator of its own) and whatever a compiler gets wrong shows here, before any step relies on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from ...hypergrad.tensors import laid_out
from .outcome import Result

DIGITS = 0.5
"""Of each tensor so much of the digits has to agree: two orders of the same operations are two roundings."""
ROUNDINGS = 100
"""Each may be off by so many roundings of all tensors of its kind together, some of which are zero but for those; never
by more than half of the digits of all."""
NUDGE, NUDGES = 4, 10
"""And, where that was measured, by so many times of what it changes to take so many roundings off the inputs."""


class Findings(NamedTuple):
    """What one evaluation of a level step results in.

    Attributes:
        result: Loss, metrics, gradients.
        buffers: The buffers that it moves, as they are after it.
    """

    result: Result
    buffers: Sequence[Tensor]

    def by_kind(self) -> dict[str, list[Tensor]]:
        """All tensors in it, by what they are."""
        loss, metrics, gradients = self.result
        kinds: dict[str, Sequence[Tensor | None]] = {"loss": [loss], "gradient": gradients.direct}
        kinds |= {f"metric '{key}'": [metric] for key, metric in metrics.items()}
        kinds |= {f"gradient with respect to '{name}'": below for name, below in gradients.cotangents.items()}
        kinds |= {"total gradient": gradients.total} if gradients.swept is not None else {}
        kinds["buffers"] = self.buffers
        return {kind: [t.detach() for t in tensors if t is not None] for kind, tensors in kinds.items()}


class Digest(NamedTuple):
    """What is kept of a tensor to compare it with another, so that there is memory for the eager step in between.

    Attributes:
        sums: The sums over its rows and over its columns.
        norm: Its norm.
    """

    sums: Tensor
    norm: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Digest:
        """Of any tensor."""
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor.to_dense()
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        table = tensor.flatten(1) if tensor.dim() > 1 else tensor.reshape(1, tensor.numel())
        sums = torch.cat([table.sum(0, dtype=dtype), table.sum(1, dtype=dtype)])
        return cls(sums, torch.linalg.vector_norm(sums if not tensor.is_floating_point() else tensor, dtype=dtype))


class Trial:
    """One step taken both ways. Nothing of what the program finds takes effect.

    Args:
        found: Evaluates the program with its inputs multiplied by numbers up to so much less than one.
        precision: Of its arithmetic, relative.
        nudged: Measure what another rounding of the inputs changes as well.
    """

    def __init__(self, found: Callable[[float], Findings], precision: float, *, nudged: bool) -> None:
        self._precision = precision
        self._found = _by_kind(found(0.0))
        self._nudged = _by_kind(found(NUDGE * precision)) if nudged else self._found

    def objection(self, eager: Findings) -> str | None:
        """What of an eager step the program found to be something else, in words; ``None`` where they agree."""
        expected = _by_kind(eager)
        for kind, found in self._found.items():
            differs = difference(found, expected.get(kind, []), self._nudged[kind], self._precision)
            if differs is not None:
                return f"another {kind} than the eager step ({differs})"
        return None


def difference(
    found: Sequence[Digest], expected: Sequence[Digest], nudged: Sequence[Digest], precision: float
) -> str | None:
    """How far tensors are from others, where that is too far for rounding.

    Args:
        found: The ones.
        expected: The others.
        nudged: The first after other roundings of what they were computed from.
        precision: Of the arithmetic, relative.
    """
    if len(found) != len(expected):
        return f"{len(found)} tensors instead of {len(expected)}"
    norms = [float(digest.norm.nan_to_num(posinf=0.0)) for digest in expected]
    together = min(ROUNDINGS * precision, precision**DIGITS) * math.hypot(*norms)
    for f, e, n, norm in zip(found, expected, nudged, norms, strict=True):
        off = _distance(f.sums, e.sums)
        allowed = precision**DIGITS * norm + together + NUDGES * _distance(f.sums, n.sums)
        if off > allowed:
            return f"{off:.1e} away; rounding explains {allowed:.1e} at most"
    return None


def coarsest(graph: fx.GraphModule) -> float:
    """The relative precision of the coarsest numbers in a graph."""
    values = [node.meta.get("val") for node in graph.graph.nodes]
    dtypes = {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()}
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def nudged(tensors: Iterable[Tensor], by: float) -> list[Tensor]:
    """Tensors with every number a little nearer to zero, by random parts of this at most."""
    generator = torch.Generator().manual_seed(0)
    return [_nudged(tensor, by, generator) if by and tensor.is_floating_point() else tensor for tensor in tensors]


def _nudged(tensor: Tensor, by: float, generator: torch.Generator) -> Tensor:
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    noise = torch.rand(tensor.shape, generator=generator, dtype=dtype).to(tensor.device)
    return laid_out((tensor * (1 - by * noise)).to(tensor.dtype), tensor)


def digests(tensors: Iterable[Tensor]) -> list[Digest]:
    """Those of some tensors."""
    return [Digest.of(tensor) for tensor in tensors]


def _by_kind(findings: Findings) -> dict[str, list[Digest]]:
    return {kind: digests(tensors) for kind, tensors in findings.by_kind().items()}


def _distance(one: Tensor, other: Tensor) -> float:
    """The norm of the difference where both are finite; infinite where only one is."""
    if not torch.equal(one.isfinite(), other.isfinite()):
        return float("inf")
    return float(torch.linalg.vector_norm((one - other).nan_to_num(posinf=0.0, neginf=0.0)))
