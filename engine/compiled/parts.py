"""A large program in several parts, cut where little is alive.

A compiler puts operations together that read the same tensors, whatever comes in between: of two evaluations of a
network it makes one, of twice the memory. It cannot do so across parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor, fx

from ...hypergrad.tensors import laid_out
from .graphs import base_of, is_view, part_of, without_writes
from .lowering import Function, compiled
from .reasons import reason_of

SMALL = 2**22
"""So many bytes may be alive at once. To copy them takes 0.2 ms, and to call another part 0.03."""
WAIST = 0.25
"""A cut may be where no more is alive than this share of the most that is."""


def compiled_in_parts(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Function:
    """As :func:`~multilevel.engine.compiled.lowering.compiled`, in as many parts as keep the memory small.

    Raises:
        TracingError: It cannot be compiled.
    """
    try:
        return _Parts(without_writes(graph, examples)) if waists(graph) else compiled(graph, examples)
    except Exception as error:
        raise reason_of(error) from error


def waists(graph: fx.GraphModule) -> list[int]:
    """The numbers of the nodes behind which to cut."""
    alive, whole = _alive(graph)
    most = max(alive)
    cuts: list[int] = []
    best, begun = None, False
    for i, size in enumerate(alive):
        if size > max(WAIST * most, SMALL * WAIST):
            cuts += [] if best is None else [best]
            best, begun = None, True
        elif begun and i not in whole and (best is None or size < alive[best]):
            best = i
    return cuts if most > SMALL else []


def _alive(graph: fx.GraphModule) -> tuple[list[int], set[int]]:
    """Bytes of results that are still to be read after each node; and where a tuple is, which cannot be handed over."""
    number = {node: i for i, node in enumerate(graph.graph.nodes)}
    ends: dict[fx.Node, int] = {}
    for node in number:
        if node.op == "call_function":
            last = max((number[user] for user in node.users), default=number[node])
            ends[base_of(node)] = max(ends.get(base_of(node), 0), last)
    change, whole = [0] * (len(number) + 1), set()
    for node, end in ends.items():
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            whole |= set(range(number[node], end))
        elif node.op == "call_function":
            change[number[node]] += value.numel() * value.element_size()
            change[end] -= value.numel() * value.element_size()
    return list(accumulate(change[:-1])), whole


@dataclass(frozen=True)
class _Part:
    """One part, and the numbers of the values that it reads, that it gives, and that it is the last to read."""

    function: Function
    examples: Sequence[Tensor]
    reads: Sequence[int]
    gives: Sequence[int]
    last: Sequence[int]


class _Parts:
    """Runs parts one after another.

    Args:
        graph: What to part, of operations that write to nothing.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        nodes = list(graph.graph.nodes)
        place = {node: i for i, node in enumerate(nodes)}
        results, cuts = list(nodes[-1].args[0]), [-1, *waists(graph), len(nodes) - 2]
        inside = [
            [node for node in nodes[first + 1 : last + 1] if node.op == "call_function"]
            for first, last in pairwise(cuts)
        ]
        needs = [_needs(part) for part in inside]
        self._inputs = [place[node] for node in graph.graph.find_nodes(op="placeholder")]
        self._results = [place[node] for node in results]
        self._parts = []
        for i, (part, (given, again)) in enumerate(zip(inside, needs, strict=True)):
            later = set(results).union(*(given for given, _ in needs[i + 1 :]))
            gives = [node for node in part if node in later]
            function = part_of(graph, given, sorted([*again, *part], key=place.__getitem__), gives)
            examples = [node.meta["val"] for node in given]
            self._parts.append(
                _Part(
                    function=compiled(function, examples),
                    examples=examples,
                    reads=[place[node] for node in given],
                    gives=[place[node] for node in gives],
                    last=[place[node] for node in given if node not in later],
                )
            )

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        values = dict(zip(self._inputs, inputs, strict=True))
        for part in self._parts:
            given = [laid_out(values[i], like) for i, like in zip(part.reads, part.examples, strict=True)]
            for i in part.last:
                del values[i]
            values.update(zip(part.gives, part.function(*given), strict=True))
            del given
        return [values[i] for i in self._results]


def _needs(part: Iterable[fx.Node]) -> tuple[list[fx.Node], set[fx.Node]]:
    """What a part reads of those before it, and what of theirs it makes again: views and constants."""
    inside, again = set(part), set()
    given: dict[fx.Node, None] = {}
    waiting = [node for operation in part for node in operation.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in inside or node in again or node in given:
            continue
        if is_view(node) or node.op == "get_attr":
            again.add(node)
            waiting.extend(node.all_input_nodes)
        else:
            given[node] = None
    return list(given), again
