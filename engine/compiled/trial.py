"""What a new program finds, beside what the eager step finds on the same batch: it is used once the two agree.

A program repeats what was recorded. Whatever recording could not know (a constant that is another by now, numbers of a
generator of its own) and whatever a compiler gets wrong shows here, before any step relies on it.

Two right orders of the same operations differ by rounding: in the second half of the digits where all is well, and by
anything where large numbers cancel, as in a finite difference. How much that is, is measured where more digits differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from ...hypergrad.tensors import laid_out
from .outcome import Result

DIGITS = 0.5
"""This share of the digits of each tensor has to agree."""
ROUNDINGS = 10
"""So many roundings of all tensors of a kind together are allowed for each: some are zero but for those."""
NUDGES, NUDGE = 3, 4
"""How often rounding is measured, and by how many roundings the numbers are moved that a program reads."""
MARGIN = 10
"""So many times of the most that this changed is allowed."""


class Findings(NamedTuple):
    """What one evaluation of a level step results in.

    Attributes:
        result: Loss, metrics, gradients.
        buffers: The buffers that it moves, as they are after it.
        memories: The tensors that methods remember after it, by level.
    """

    result: Result
    buffers: Sequence[Tensor]
    memories: Mapping[str, Sequence[Tensor]]

    def by_kind(self, *, sweeps: bool) -> dict[str, list[Tensor]]:
        """All tensors in it, by what they are.

        Args:
            sweeps: With the derivative through the levels below.
        """
        loss, metrics, gradients = self.result
        kinds: dict[str, Sequence[Tensor | None]] = {"loss": [loss], "gradient": gradients.direct}
        # With the loss, whose roundings a metric has that is zero but for rounding.
        kinds |= {f"metric '{key}'": [metric, loss] for key, metric in metrics.items()}
        kinds |= {f"gradient with respect to '{name}'": below for name, below in gradients.cotangents.items()}
        kinds |= {f"memory of '{name}'": tensors for name, tensors in self.memories.items()}
        kinds |= {"total gradient": gradients.total} if sweeps and gradients.swept is not None else {}
        kinds["buffers"] = self.buffers
        return {kind: [t.detach() for t in tensors if t is not None] for kind, tensors in kinds.items()}


class Digest(NamedTuple):
    """What is kept of a tensor to compare it with another, so that there is memory for the eager step in between.

    Attributes:
        sums: Its norm, and the sums over its rows and over its columns, with random signs.
        precision: The relative precision of its numbers; zero where they are whole.
    """

    sums: Tensor
    precision: float

    @classmethod
    def of(cls, tensor: Tensor) -> Digest:
        """Of any tensor."""
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor.to_dense()
        table = tensor.flatten(1) if tensor.dim() > 1 else tensor.reshape(1, tensor.numel())
        if not tensor.is_floating_point():
            table = table.to(torch.int64)
            rows, columns = (_signs(size).to(table.device) for size in table.shape)
            return cls(torch.cat([(table * columns).sum(1), (table.t() * rows).sum(1)]), 0.0)
        table = table.to(torch.promote_types(tensor.dtype, torch.float32))
        rows, columns = (_signs(size).to(table) for size in table.shape)
        sums = [torch.linalg.vector_norm(table).reshape(1), table @ columns, rows @ table]
        return cls(torch.cat(sums), torch.finfo(table.dtype).eps)

    @property
    def size(self) -> float:
        """The norm of what is finite in it."""
        return float(torch.linalg.vector_norm(_finite(self.sums)))

    def distance(self, other: Digest) -> float:
        """That of two tensors where both are finite; infinite where only one is."""
        if not torch.equal(self.sums.isfinite(), other.sums.isfinite()):
            return math.inf
        return float(torch.linalg.vector_norm(_finite(self.sums - other.sums)))


class Trial:
    """One step taken both ways. Nothing of what the program finds takes effect.

    Args:
        found: Evaluates the program, with what it reads moved by the roundings of a seed; at first, not moved.
        precision: Of its arithmetic, relative.
        nudged: Measure what rounding changes.
        sweeps: Whether the derivative through the levels below is the program's.
    """

    def __init__(
        self, found: Callable[[int | None], Findings], precision: float, *, nudged: bool, sweeps: bool
    ) -> None:
        self._precision, self._sweeps = precision, sweeps
        self._found = self._digests(found(None))
        self._nudged = [self._digests(found(seed)) for seed in range(NUDGES)] if nudged else []

    def objection(self, eager: Findings) -> str | None:
        """What of an eager step the program found to be something else, in words; ``None`` where they agree."""
        expected = self._digests(eager)
        if kinds := set(self._found) ^ set(expected):
            return f"no {min(kinds)}" if min(kinds) in expected else f"a {min(kinds)}, which the eager step has not"
        for kind, found in self._found.items():
            rounding = spread(found, [digests[kind] for digests in self._nudged])
            if (differs := difference(expected[kind], found, self._precision, rounding)) is not None:
                return f"another {kind} than the eager step ({differs})"
        return None

    @property
    def tells(self) -> bool:
        """Whether any gradient is another than zero: whatever computes zeros would agree on them."""
        return any(digest.size for kind, found in self._found.items() if "gradient" in kind for digest in found)

    def _digests(self, findings: Findings) -> dict[str, list[Digest]]:
        return {kind: digests(tensors) for kind, tensors in findings.by_kind(sweeps=self._sweeps).items()}


def difference(expected: Sequence[Digest], found: Sequence[Digest], precision: float, rounding: float) -> str | None:
    """How far tensors are from others, where that is too far for rounding.

    Args:
        expected: The ones.
        found: The others.
        precision: Of the arithmetic, relative.
        rounding: How much another rounding was seen to change them; zero where that was not measured.
    """
    if len(found) != len(expected):
        return f"{len(found)} tensors instead of {len(expected)}"
    sizes = [digest.size if digest.precision else 0.0 for digest in expected]
    together = min(ROUNDINGS * precision, precision**DIGITS) * math.hypot(*sizes)
    for e, f, size in zip(expected, found, sizes, strict=True):
        of_digits = precision**DIGITS * size + together if e.precision else 0.0
        off, allowed = e.distance(f), of_digits + MARGIN * rounding
        if off > allowed:
            return f"{off:.1e} away; rounding explains {allowed:.1e} at most"
    return None


def spread(usual: Sequence[Digest], nudged: Sequence[Sequence[Digest]]) -> float:
    """How far tensors are at most from themselves after other roundings, all of them together."""
    found = [math.hypot(*[n.distance(u) for n, u in zip(one, usual, strict=True)]) for one in nudged]
    return max([distance for distance in found if math.isfinite(distance)], default=0.0)


def digests(tensors: Iterable[Tensor]) -> list[Digest]:
    """Those of some tensors."""
    return [Digest.of(tensor) for tensor in tensors]


def coarsest(graph: fx.GraphModule) -> float:
    """The relative precision of the coarsest numbers in a graph."""
    values = [node.meta.get("val") for node in graph.graph.nodes]
    dtypes = {v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()}
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def nudged(tensors: Iterable[Tensor], by: float, seed: int) -> list[Tensor]:
    """Tensors with every number moved by random parts of this at most; whole numbers stay, some of which are names."""
    generator = torch.Generator().manual_seed(seed)
    return [_nudged(tensor.detach(), by, generator) if tensor.is_floating_point() else tensor for tensor in tensors]


def _nudged(tensor: Tensor, by: float, generator: torch.Generator) -> Tensor:
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    moved = torch.rand(tensor.shape, generator=generator, dtype=dtype).to(tensor.device)
    moved = moved.mul_(2 * by).add_(1 - by).mul_(tensor).to(tensor.dtype)  # in place: this is where memory peaks
    whole = tensor == tensor.round()
    return laid_out(torch.where(whole, tensor, moved, out=moved), tensor)


def _signs(size: int) -> Tensor:
    return 2 * torch.randint(2, (size,), generator=torch.Generator().manual_seed(size)) - 1


def _finite(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
