"""What a level step results in, as numbers of a program's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils import _pytree as pytree

from ...hypergrad.tracing import Look, Notes
from ..gradients import LevelGradients

Result: TypeAlias = tuple[Tensor, dict[str, Tensor], LevelGradients]
"""Loss, metrics, gradients."""
Place: TypeAlias = tuple[dict[str, Any], str]
"""Where a module keeps a buffer."""
Numbers: TypeAlias = tuple["int | None", ...]


class Outputs:
    """Collects the tensors that a program returns.

    Attributes:
        tensors: The tensors.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def add(self, tensor: Tensor) -> int:
        """Take a tensor, and give its number."""
        self.tensors.append(tensor.detach())
        return len(self.tensors) - 1

    def add_all(self, leaves: Iterable[Any]) -> tuple[Any, ...]:
        """The numbers of tensors; whatever is none stays as it is."""
        return tuple(self.add(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves)


@dataclass(frozen=True)
class Outcome:
    """The results of a level step.

    Attributes:
        loss: The number of the loss.
        metrics: Those of the metrics.
        gradients: Those of the total, direct and swept gradients, ``None`` where there is none.
        cotangents: Those of the cotangents, by lower.
        buffers: The places of the buffers that move, and the numbers of what they become.
        memories: What methods remember, by level: a tree, and its leaves with numbers in place of tensors.
        looks: Who looks at what.
    """

    loss: int
    metrics: Mapping[str, int]
    gradients: tuple[Numbers, Numbers, Numbers | None]
    cotangents: Mapping[str, Numbers]
    buffers: Sequence[tuple[Place, int]]
    memories: Mapping[str, tuple[Any, list[tuple[bool, Any]]]]
    looks: Sequence[tuple[Look, int]]

    @classmethod
    def collect(
        cls,
        outputs: Outputs,
        result: Result,
        buffers: Iterable[tuple[Place, Tensor]],
        memories: Mapping[str, dict[str, Any]],
        notes: Notes,
    ) -> Outcome:
        """Give every tensor in the results of a step its number."""
        loss, metrics, found = result
        kept = {}
        for name, memory in memories.items():
            leaves, tree = pytree.tree_flatten(memory)
            kept[name] = tree, [(True, outputs.add(v)) if isinstance(v, Tensor) else (False, v) for v in leaves]
        return cls(
            loss=outputs.add(loss),
            metrics={key: outputs.add(value) for key, value in metrics.items()},
            gradients=(
                outputs.add_all(found.total),
                outputs.add_all(found.direct),
                outputs.add_all(found.swept) if found.swept is not None else None,
            ),
            cotangents={name: outputs.add_all(tensors) for name, tensors in found.cotangents.items()},
            buffers=[(place, outputs.add(buffer)) for place, buffer in buffers],
            memories=kept,
            looks=[(who, outputs.add(seen)) for who, seen in zip(notes.who, notes.seen, strict=True)],
        )

    def result(self, outputs: Sequence[Tensor]) -> Result:
        """Loss, metrics and gradients."""

        def pick(numbers: Numbers) -> tuple[Tensor | None, ...]:
            return tuple([None if i is None else outputs[i] for i in numbers])

        total, direct, swept = self.gradients
        gradients: Any = (
            pick(total),
            pick(direct),
            pick(swept) if swept is not None else None,
            {name: pick(numbers) for name, numbers in self.cotangents.items()},
        )
        metrics = {key: outputs[i].detach() for key, i in self.metrics.items()}  # some are views of parameters
        return outputs[self.loss], metrics, LevelGradients(*gradients)

    def memory(self, name: str, outputs: Sequence[Tensor]) -> dict[str, Any]:
        """What the method of a level remembers from now on."""
        tree, leaves = self.memories[name]
        memory: dict[str, Any] = pytree.tree_unflatten([outputs[v] if tensor else v for tensor, v in leaves], tree)
        return memory
