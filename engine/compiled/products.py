"""Matrix products on the host, in the form in which they take the least time there.

* A product to which something is added (``addmm``) is first filled with that, in a pass of its own. Apart, the sum
  becomes a part of whatever the compiler makes of the operations after it.
* Libraries compute several rows of a result at once where these are next to each other in memory, as the columns of the
  transposed result are. So a result with many rows and few columns, such as the predictions of a classifier on a batch,
  takes a fifth to two thirds of the time as the transposed product of the transposed factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode

from .graphs import call, copied

aten = torch.ops.aten
NARROW, TALL = 16, 64
"""Fewer columns than that, and no fewer rows."""
BY_STRIDES = (aten.as_strided.default, aten.view.dtype)
"""Operations that compute something else where a tensor lies in memory in another way."""


def for_host(graph: fx.GraphModule, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The same function in such products; its results lie in memory as before.

    Args:
        graph: Its nodes know what they compute (``meta["val"]``).
        examples: Tensors like its inputs, without values.
    """
    apart = copied(graph)
    _take_sums_apart(apart)
    turned = copied(apart)
    return turned if _turn_narrow_products(turned, examples) else apart


def _take_sums_apart(graph: fx.GraphModule) -> None:
    for node in graph.graph.find_nodes(op="call_function", target=aten.addmm.default):
        if not node.kwargs:
            added, left, right = node.args
            with graph.graph.inserting_before(node):
                product = call(graph, aten.mm.default, left, right)
                node.replace_all_uses_with(call(graph, aten.add.Tensor, product, added))
            graph.graph.erase_node(node)
    graph.recompile()


def _turn_narrow_products(graph: fx.GraphModule, examples: Sequence[Tensor]) -> bool:
    """Transpose a graph's narrow products, and say whether it has any and works with them."""
    nodes = list(graph.graph.nodes)
    narrow = [node for node in nodes if node.target in (aten.mm.default, aten.bmm.default) and _is_narrow(node)]
    if not narrow or any(node.target in BY_STRIDES for node in nodes):
        return False
    (end,) = graph.graph.find_nodes(op="output")
    results = [node.meta["val"] for node in end.args[0]]
    for node in narrow:
        left, right = node.args
        with graph.graph.inserting_before(node):
            factors = [call(graph, aten.transpose.int, factor, -2, -1) for factor in (right, left)]
            product = call(graph, node.target, *factors)
            node.replace_all_uses_with(call(graph, aten.transpose.int, product, -2, -1))
        graph.graph.erase_node(node)
    for node in nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # a turned tensor may have no such view
    graph.recompile()
    return _lay_out_results(graph, examples, results)


def _is_narrow(node: fx.Node) -> bool:
    *_, rows, columns = node.meta["val"].shape
    return columns < NARROW and rows >= TALL and node.meta["val"].dtype in (torch.float32, torch.float64)


def _lay_out_results(graph: fx.GraphModule, examples: Sequence[Tensor], like: Sequence[Tensor]) -> bool:
    """Let the results lie in memory as others do, and say whether that is possible."""
    (end,) = graph.graph.find_nodes(op="output")
    try:
        with detect_fake_mode(examples) or nullcontext():
            found = fx.Interpreter(graph).run(*examples)
    except RuntimeError:  # an operation that takes no turned tensors
        return False
    results = []
    for node, value, before in zip(end.args[0], found, like, strict=True):
        result = node
        if value.stride() != before.stride():
            if not before.is_contiguous():
                return False
            with graph.graph.inserting_before(end):
                result = call(graph, aten.clone.default, node, memory_format=torch.contiguous_format)
        results.append(result)
    end.args = (results,)
    graph.recompile()
    return True
