"""All tensors that a level step depends on, where each is found from step to step, and others in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ...hypergrad.errors import TracingError
from ...hypergrad.tensors import Tensors, laid_out
from ...problems.level import ProblemLevel
from ...problems.moment import Moment
from ...problems.problem import Problem
from .optimizers import OptimizerPlaces
from .outcome import Place
from .reads import Reading, Source


class Stage:
    """The tensors of a level step: parameters, buffers, batches, memories of methods, states of optimizers.

    Args:
        problems: All problems of the engine.
        moments: Those whose training steps are evaluated, with the moments they are evaluated at.
        reading: What these training steps read.

    Attributes:
        tensors: The tensors.
        sources: Where each is found.
        parameters: The numbers of the parameters among them, by problem.
    """

    def __init__(self, problems: Mapping[str, Problem], moments: Mapping[str, Moment], reading: Reading) -> None:
        self.tensors: list[Tensor] = []
        self.sources: list[Source] = []
        self._problems = problems
        self._levels = {name: problem.level for name, problem in problems.items()}
        self._moments = moments
        self._read = {id(tensor): _read(i) for i, tensor in enumerate(reading.tensors)}
        self.parameters = {
            name: [self._add(p, _always(p)) for p in level.parameters] for name, level in self._levels.items()
        }
        self._buffers = self._find_buffers(problems)
        self._batches = {name: self._find_batch(moment.batch) for name, moment in moments.items()}
        self._memories = {name: self._find_memory(self._levels[name]) for name in moments}
        readers = [problems[name] for name in moments if problems[name].method.reads_optimizer]
        self._former: dict[str, dict[str, Any]] = {}
        self._optimizers = [OptimizerPlaces(problem, self._add) for problem in readers]
        placed = {id(tensor) for tensor in self.tensors}
        self._others = [tensor for tensor in reading.tensors if id(tensor) not in placed]

    def elsewhere(self, tensor: Tensor) -> Source | None:
        """Where a tensor that is none of these is found, if training steps read it.

        Raises:
            TracingError: It is a parameter, and no other tensor was in its place.
        """
        for name, level in self._levels.items():
            if any(tensor is parameter for parameter in level.parameters):
                raise TracingError(
                    f"a parameter of '{name}' is read other than through that problem's module, where no other tensor "
                    "can stand in for it; read it as self.module.weight, in self.parameters, or by calling the problem"
                )
        return self._read.get(id(tensor))

    def now(self, names: Sequence[str]) -> Tensors:
        """The parameters of these problems, or what is in their places."""
        return tuple(p for name in names for p in self._levels[name].parameters)

    @contextmanager
    def others_kept(self) -> Iterator[None]:
        """Undo what the block writes to tensors that nothing stands in for: recording computes with them for real.

        Raises:
            TracingError: One has no values any more, because it was assigned to.
        """
        others = [(tensor, tensor._version, tensor.data, tensor.detach().clone()) for tensor in self._others]
        assigned = False
        try:
            yield
        finally:
            for tensor, version, data, kept in others:
                if tensor.is_meta and not data.is_meta:
                    tensor.data, assigned = data, True
                if tensor._version != version:
                    tensor.detach().copy_(kept)
        if assigned:
            raise TracingError("training_step assigns to .data of a tensor that stays")

    @contextmanager
    def taken_by(
        self, given: Sequence[Tensor], begin: Callable[[str | None], None]
    ) -> Iterator[list[tuple[Place, Tensor]]]:
        """Put other tensors in the places of these, one for each, while the block runs.

        Yields the buffers: their places, and what is there.

        Args:
            given: The other tensors.
            begin: Is told whose training step is about to be evaluated, and ``None`` after it.
        """
        levels, before = self._levels, {n: (v.parameters, v.moment, v.memory) for n, v in self._levels.items()}
        buffers = [(place, key, place[key]) for place, key, _ in self._buffers]
        announced = {self._problems[name]: vars(self._problems[name]).get("training_step") for name in self._moments}
        copies = {i: given[i].clone() for _, _, i in self._buffers}  # training writes to buffers
        try:
            for name, level in levels.items():
                level.parameters = tuple(given[i].detach().requires_grad_() for i in self.parameters[name])
                level.slots.put(level.parameters)
            for place, key, i in self._buffers:
                place[key] = copies[i]
            for name, moment in self._moments.items():
                batch = _with_leaves(moment.batch, {i: given[k] for i, k in self._batches[name].items()})
                levels[name].moment = moment._replace(batch=batch)
                memory = _with_leaves(levels[name].memory, {i: given[k] for i, k in self._memories[name].items()})
                levels[name].memory, self._former[name] = dict(memory), memory
            for optimizer in self._optimizers:
                optimizer.take(given)
            for problem in announced:
                _announce(problem, begin)
            yield [((place, key), place[key]) for place, key, _ in self._buffers]
        finally:
            for name, level in levels.items():
                level.parameters, level.moment, level.memory = before[name]
                level.slots.put(level.parameters)
            for place, key, buffer in buffers:
                place[key] = buffer
            for optimizer in self._optimizers:
                optimizer.put_back()
            for problem, own in announced.items():
                _restore(problem, own)

    def new_memories(self) -> dict[str, dict[str, Any]]:
        """What methods remember now, of those whose memory changed in the block."""
        memories = {name: self._levels[name].memory for name in self._moments}
        return {name: memory for name, memory in memories.items() if _differ(memory, self._former[name])}

    def _add(self, tensor: Tensor, source: Source) -> int:
        self.tensors.append(tensor)
        self.sources.append(source)
        return len(self.tensors) - 1

    def _find_buffers(self, problems: Mapping[str, Problem]) -> list[tuple[dict[str, Any], str, int]]:
        found: dict[int, int] = {}
        places = []
        for problem in problems.values():
            for part in problem.module.modules():
                for key, buffer in part._buffers.items():
                    if buffer is None:
                        continue
                    if id(buffer) not in found:
                        found[id(buffer)] = self._add(buffer, _place(part._buffers, key))
                    places.append((part._buffers, key, found[id(buffer)]))
        return places

    def _find_batch(self, batch: Any) -> dict[int, int]:
        """By number of leaf; what no training step reads stays as it is."""
        return {
            i: self._add(leaf, self._read[id(leaf)])
            for i, leaf in enumerate(pytree.tree_leaves(batch))
            if id(leaf) in self._read
        }

    def _find_memory(self, level: ProblemLevel) -> dict[int, int]:
        leaves, _ = pytree.tree_flatten_with_path(level.memory)
        return {
            i: self._add(leaf, _remembered(level, path, leaf))
            for i, (path, leaf) in enumerate(leaves)
            if isinstance(leaf, Tensor)
        }


def _announce(problem: Problem, begin: Callable[[str | None], None]) -> None:
    step: Callable[[Any], Any] = problem.training_step

    def announced(batch: Any) -> Any:
        begin(problem.name)
        try:
            return step(batch)
        finally:
            begin(None)

    vars(problem)["training_step"] = announced


def _restore(problem: Problem, own: Any) -> None:
    if own is None:
        vars(problem).pop("training_step", None)
    else:
        vars(problem)["training_step"] = own


def _with_leaves(tree: Any, leaves: Mapping[int, Tensor]) -> Any:
    """A tree with some leaves replaced, by their numbers."""
    if not leaves:
        return tree
    flat, structure = pytree.tree_flatten(tree)
    return pytree.tree_unflatten([leaves.get(i, leaf) for i, leaf in enumerate(flat)], structure)


def _differ(memory: dict[str, Any], former: dict[str, Any]) -> bool:
    (leaves, structure), (others, other_structure) = pytree.tree_flatten(memory), pytree.tree_flatten(former)
    return structure != other_structure or any(
        a is not b if isinstance(a, Tensor) else a != b for a, b in zip(leaves, others, strict=True)
    )


def _always(tensor: Tensor) -> Source:
    return lambda reading: tensor


def _place(slots: dict[str, Any], key: str) -> Source:
    return lambda reading: slots[key]


def _read(index: int) -> Source:
    return lambda reading: reading.tensors[index]


def _remembered(level: ProblemLevel, path: Any, like: Tensor) -> Source:
    return lambda reading: laid_out(pytree.key_get(level.memory, path), like)
