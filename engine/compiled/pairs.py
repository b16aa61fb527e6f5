"""The two evaluations of a difference as one, of both points at once.

A program is recorded of both, one after the other. Where they are the same operations on other tensors, these tensors
are stacked, and the operations are done once, along the new dimension (``torch.vmap``). That saves the calls of half of
them, which is much of what small convolutions take. Nothing else gains by it: a compiler puts the cheap operations of
both evaluations together anyway, and calls of matrix products take next to no time.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from .graphs import BY_STRIDES, call, copied, is_view, part_of, without_writes

aten = torch.ops.aten
Pair: TypeAlias = tuple[fx.Node, fx.Node]
GAINING = (aten.convolution.default, aten.convolution_backward.default)
"""Operations of which two are faster as one, in small evaluations."""
SMALL = 2**20
"""So many bytes of results an evaluation may have to be done together with another. Beyond, that takes longer."""


def evaluated_together(
    graph: fx.GraphModule, examples: Sequence[Tensor], pairs: Sequence[Sequence[tuple[int, int]]], results: int
) -> fx.GraphModule:
    """A graph that does once what another does twice in the same way, where that is possible and faster.

    Args:
        graph: The other.
        examples: Tensors like its inputs, without values.
        pairs: The numbers of outputs that were computed alike, two and two; those of each two evaluations together.
        results: How many of the outputs, from the first on, are to be returned.
    """
    try:
        new = without_writes(copied(graph), examples)
        _evaluate_together(new, pairs, results)
    except Exception:  # of operations that others have added nothing is known; it is right as it is
        new = copied(graph)
        _return_only(new, results)
    new.graph.eliminate_dead_code()
    new.recompile()
    return new


def _evaluate_together(graph: fx.GraphModule, pairs: Sequence[Sequence[tuple[int, int]]], results: int) -> None:
    outputs = _return_only(graph, results)
    if any(node.target in BY_STRIDES for node in graph.graph.nodes):
        return
    for pair in reversed(pairs):  # those that are inside of another come before it
        graph.graph.eliminate_dead_code()
        nodes = [(outputs[i], outputs[k]) for i, k in pair]
        if not any(node._erased for both in nodes for node in both):
            _merge(graph, nodes)


def _return_only(graph: fx.GraphModule, results: int) -> list[fx.Node]:
    """Let a graph return no more than its first results; gives all that it returned."""
    (end,) = graph.graph.find_nodes(op="output")
    outputs = list(end.args[0])
    end.args = (outputs[:results],)
    return outputs


def _merge(graph: fx.GraphModule, pairs: Iterable[Pair]) -> None:
    """Merge the evaluations that some results, two and two, are of."""
    alike = Alike()
    if not all([alike.take(one, other) for one, other in pairs]) or not alike.are_worth_it:
        return
    place = {node: i for i, node in enumerate(graph.graph.nodes)}
    both = {*alike.twins, *alike.twins.values()}
    results = sorted((a for a, b in alike.twins.items() if {*a.users, *b.users} - both), key=place.__getitem__)
    users = {user for a in results for user in (*a.users, *alike.twins[a].users)} - both
    reads = {node for pair in alike.reads for node in pair}
    begin = min(users, key=place.__getitem__)
    # What is read must be there before the first result is; and one tensor cannot be read as two.
    if reads & both or any(place[node] >= place[begin] for node in reads) or not alike.is_unambiguous:
        return
    one = part_of(graph, [a for a, _ in alike.reads], sorted(alike.twins, key=place.__getitem__), results)
    stacked = _stacked(one, list(alike.reads))
    if stacked is None or not all(map(_are_two_of, _results(stacked), results)):
        return
    with graph.graph.inserting_before(begin):
        given = [a if a is b else call(graph, aten.stack.default, [a, b]) for a, b in alike.reads]
        for a, together in zip(results, _inlined(graph, stacked, given), strict=True):
            for i, node in enumerate((a, alike.twins[a])):
                single = _laid_out(graph, call(graph, aten.select.int, together, 0, i), like=node)
                node.replace_all_uses_with(single, delete_user_cb=lambda user: user not in both)


class Alike:
    """Operations that are the same two and two, found from their results backwards.

    Attributes:
        twins: Those of the one evaluation, with those of the other.
        reads: What they read, likewise; a tensor with itself where both read that.
    """

    def __init__(self) -> None:
        self.twins: dict[fx.Node, fx.Node] = {}
        self.reads: dict[Pair, None] = {}

    @property
    def are_worth_it(self) -> bool:
        """Whether they take less time together. That was measured on the host alone."""
        values = [value for node in self.twins if isinstance(value := node.meta.get("val"), Tensor)]
        size = sum(value.numel() * value.element_size() for value in values)
        return (
            size <= SMALL
            and all(value.device.type == "cpu" for value in values)
            and any(node.target in GAINING for node in self.twins)
        )

    @property
    def is_unambiguous(self) -> bool:
        """Whether each operation and each tensor of the one evaluation has a single counterpart."""
        counterparts = set(self.twins.values())
        return (
            len(counterparts) == len(self.twins)
            and counterparts.isdisjoint(self.twins)
            and len({a for a, _ in self.reads}) == len(self.reads)
        )

    def take(self, one: fx.Node, other: fx.Node) -> bool:
        """Take in a pair of results, and say whether what they are made of has the same form."""
        waiting = [(one, other)]
        while waiting:
            a, b = waiting.pop()
            if self.twins.get(a) is b or (a, b) in self.reads:
                continue
            if a is b or not _same_operation(a, b):
                if not _same_form(a, b):
                    return False
                self.reads[a, b] = None
            elif a in self.twins:
                return False
            else:
                self.twins[a] = b
                waiting.extend(zip(_read_by(a), _read_by(b), strict=True))
        return True


def _same_operation(a: fx.Node, b: fx.Node) -> bool:
    if a.op != "call_function" or b.op != "call_function" or a.target is not b.target or _is_one_of_many(a):
        return False
    (leaves, structure), (others, other_structure) = (pytree.tree_flatten((n.args, n.kwargs)) for n in (a, b))
    return structure == other_structure and all(
        isinstance(y, fx.Node) if isinstance(x, fx.Node) else type(x) is type(y) and x == y
        for x, y in zip(leaves, others, strict=True)
    )


def _is_one_of_many(node: fx.Node) -> bool:
    """Whether it is one of a list of results: those of operations on several tensors there is no rule to batch."""
    return node.target is operator.getitem and isinstance(node.args[0].meta.get("val"), list)  # type: ignore[union-attr]


def _same_form(a: fx.Node, b: fx.Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return False
    return (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)


def _read_by(node: fx.Node) -> list[fx.Node]:
    return [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]


def _stacked(one: fx.GraphModule, reads: list[Pair]) -> fx.GraphModule | None:
    """A graph along a new first dimension of what it reads, but for tensors that both read; ``None`` if none can be."""
    if all(a is b for a, b in reads):
        return None
    values = [a.meta["val"] for a, _ in reads]
    with warnings.catch_warnings(), detect_fake_mode(values) or nullcontext():
        warnings.simplefilter("ignore")  # of operations without a rule, which are done one after the other
        examples = [v if a is b else torch.stack([v, v]) for v, (a, b) in zip(values, reads, strict=True)]
        together = torch.vmap(one, in_dims=tuple([None if a is b else 0 for a, b in reads]))
        stacked = make_fx(together, tracing_mode="real")(*examples)
    saves = _computing(stacked) < 2 * _computing(one)
    return stacked if saves and not stacked.graph.find_nodes(op="get_attr") else None


def _computing(graph: fx.GraphModule) -> int:
    """How many operations do more than to look at a tensor in another way."""
    return len([node for node in graph.graph.nodes if node.op == "call_function" and not is_view(node)])


def _results(graph: fx.GraphModule) -> list[fx.Node]:
    (end,) = graph.graph.find_nodes(op="output")
    return list(end.args[0])


def _are_two_of(stacked: fx.Node, single: fx.Node) -> bool:
    """Whether a result can be taken apart into two like another."""
    together, value = stacked.meta["val"], single.meta.get("val")
    if not isinstance(value, Tensor) or together.shape != (2, *value.shape) or together.dtype != value.dtype:
        return False
    return value.is_contiguous() or together[0].stride() == value.stride()


def _laid_out(graph: fx.GraphModule, node: fx.Node, like: fx.Node) -> fx.Node:
    if node.meta["val"].stride() == like.meta["val"].stride():
        return node
    return call(graph, aten.clone.default, node, memory_format=torch.contiguous_format)


def _inlined(graph: fx.GraphModule, part: fx.GraphModule, given: list[fx.Node]) -> list[fx.Node]:
    """Copies of a graph's nodes where another graph inserts now; gives those that are its results."""
    copies = dict(zip(part.graph.find_nodes(op="placeholder"), given, strict=True))
    for node in part.graph.nodes:
        if node.op == "call_function":
            copies[node] = graph.graph.node_copy(node, copies.__getitem__)
    return [copies[node] for node in _results(part)]
