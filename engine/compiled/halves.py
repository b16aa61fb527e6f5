"""A recorded function and its derivative, parted into two graphs: one that runs now, and one that runs later.

What the later one reads of the first is handed over: inputs as they are, and results on the way as further outputs.
That is what autograd does with its graphs. (A program that evaluates everything again costs more than it saves.) What
nothing but the later half needs is computed there, if fewer bytes are handed over that way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import Tensor, fx

from ...hypergrad.errors import TracingError
from .graphs import base_of, is_view, is_written, part_of, written_by

BEGIN, END = "begin", "end"


@dataclass(frozen=True)
class Halves:
    """A graph in two parts.

    Attributes:
        now: What does not depend on the late inputs: takes all the others, and returns its share of the outputs, and
            behind these what the other half reads of it.
        later: The rest: takes what it reads of the other's inputs and of its outputs, then the late inputs; returns its
            share of the outputs.
        results: Which output of ``now`` each of its share is.
        inputs: The numbers of the inputs that ``later`` reads.
        outputs: The numbers of the outputs that it reads.
        examples: Tensors without values, like what ``later`` takes.
    """

    now: fx.GraphModule
    later: fx.GraphModule
    results: list[int]
    inputs: list[int]
    outputs: list[int]
    examples: list[Tensor]


def halves(graph: fx.GraphModule, late: Iterable[int], first: int) -> Halves:
    """Part a graph.

    Args:
        graph: The graph.
        late: The numbers of the late inputs.
        first: The first of its outputs that are the later half's.

    Raises:
        TracingError: Something that both halves read is written to.
    """
    nodes, placeholders = list(graph.graph.nodes), graph.graph.find_nodes(op="placeholder")
    lates = [placeholders[i] for i in late]
    early = [node for node in placeholders if node not in lates]
    results = list(nodes[-1].args[0])
    depending = _depending_on(lates)
    handed_over = _fewest_bytes(results[:first], results[first:], depending)
    inside, shared = _computed(results[first:], handed_over.union(early), lates)
    if any(is_written(base_of(node)) for node in shared):
        raise TracingError("training_step writes in place to a tensor that its derivative depends on")
    if any(node not in inside for operation in inside for node in written_by(operation)):
        raise TracingError("the derivative of training_step writes in place to a tensor")
    given = [node for node in early if node in shared]
    kept = [node for node in nodes if node in shared and node.op != "placeholder"]
    handed = list(dict.fromkeys([*results[:first], *kept]))  # two results may be one node
    before = [node for node in nodes[:-1] if node.op != "placeholder" and node not in depending]
    return Halves(
        now=part_of(graph, early, before, handed),
        later=part_of(graph, [*given, *kept, *lates], [node for node in nodes if node in inside], results[first:]),
        results=[handed.index(node) for node in results[:first]],
        inputs=[early.index(node) for node in given],
        outputs=[handed.index(node) for node in kept],
        examples=[node.meta["val"] for node in (*given, *kept, *lates)],
    )


def _depending_on(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.op != "output" and node not in found:
            found.add(node)
            waiting.extend(node.users)
    return found


def _fewest_bytes(now: Iterable[fx.Node], later: Iterable[fx.Node], depending: set[fx.Node]) -> set[fx.Node]:
    """What to hand over: a minimum cut between what is computed now anyway and what depends on the late inputs."""
    anyway = _ancestors(now)
    network: Any = nx.DiGraph()
    network.add_nodes_from((BEGIN, END))
    asked = set(later)
    for node in _ancestors(asked) - depending:
        if node.op == "placeholder":  # there in any case
            continue
        network.add_edge((node, BEGIN), (node, END), **_capacity(node))
        if node in anyway and node.all_input_nodes and not is_view(node):
            network.add_edge(BEGIN, (node, BEGIN))
        if node in asked:
            network.add_edge((node, END), END)
        for user in node.users:
            network.add_edge((node, END), END if user in depending else (user, BEGIN))
    _, (before, _) = nx.minimum_cut(network, BEGIN, END)
    return {place[0] for place in before - {BEGIN} if place[1] == BEGIN and (place[0], END) not in before}


def _capacity(node: fx.Node) -> dict[str, Any]:
    """Without one it is infinite: views are not handed over, but what they are views of."""
    value = node.meta.get("val")
    return {"capacity": value.nbytes + 1} if isinstance(value, Tensor) and not is_view(node) else {}


def _ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes, and all that they are computed from."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _computed(
    results: Iterable[fx.Node], given: set[fx.Node], lates: Iterable[fx.Node]
) -> tuple[set[fx.Node], set[fx.Node]]:
    """What the later half computes for its results, and what it reads of what it could be given."""
    inside: set[fx.Node] = set()
    shared: set[fx.Node] = set()
    waiting = list(results)
    while waiting:
        node = waiting.pop()
        if node in inside or node in shared or node in lates:
            continue
        if node in given:
            shared.add(node)
        else:
            inside.add(node)
            waiting.extend(node.all_input_nodes)
    return inside, shared
