"""Matrix products on the host, in the form in which they take the least time there.

* A product to which something is added (``addmm``) is first filled with that, in a pass of its own. Apart, the sum
  becomes a part of whatever the compiler makes of the operations after it.
* Libraries use vectors along the columns of a result, and where it has fewer than 16 most of a vector is idle. The
  transposed product has as many columns as there were rows: the predictions of a classifier of ten classes on a
  thousand samples, for instance, take 0.2 to 0.7 of the time that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode

from .graphs import BY_STRIDES, call, copied, written_by

aten = torch.ops.aten
NARROW, TALL = 16, 64
"""Fewer columns than that, and no fewer rows. A single column is another thing: a product with a vector."""
MEASURED = (torch.float32, torch.float64)


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
        if not node.kwargs and node.meta["val"].dtype in MEASURED:
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
    # Of a turned tensor some views are copies: what writes to one would no longer write to the other.
    if not narrow or any(node.target in BY_STRIDES or written_by(node) for node in nodes):
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
    return 1 < columns < NARROW and rows >= TALL and node.meta["val"].dtype in MEASURED


def _lay_out_results(graph: fx.GraphModule, examples: Sequence[Tensor], like: Sequence[Tensor]) -> bool:
    """Let the results lie in memory as others do, and say whether that is possible."""
    (end,) = graph.graph.find_nodes(op="output")
    try:
        with detect_fake_mode(examples) or nullcontext():
            found = fx.Interpreter(graph).run(*examples)
    except Exception:  # an operation that takes no turned tensors; each says so in its own way
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
