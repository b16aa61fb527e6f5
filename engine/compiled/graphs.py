"""Small changes to a recorded graph, before it is compiled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from .reads import Source

aten = torch.ops.aten
BY_STRIDES = (
    aten.as_strided.default,
    aten.as_strided_scatter.default,
    aten._reshape_alias.default,
    aten.view.dtype,
)
"""Operations that compute something else where a tensor lies in memory in another way."""


def operations(graph: fx.GraphModule) -> int:
    """How many operations the graph has."""
    return len([node for node in graph.graph.nodes if node.op == "call_function"])


def copied_inputs(graph: fx.GraphModule) -> set[int]:
    """The numbers of outputs that are nothing but copies of inputs."""
    (end,) = graph.graph.find_nodes(op="output")
    return {i for i, node in enumerate(end.args[0]) if _is_copied_input(node)}


def _is_copied_input(node: Any) -> bool:
    while node.target is aten.detach.default:
        (node,) = node.args
    return node.target is aten.clone.default and node.args[0].op == "placeholder" and not is_written(node)


def is_written(node: fx.Node) -> bool:
    """Whether something writes to a tensor, or to a part of it."""
    return any(node in written_by(user) or (is_view(user) and is_written(user)) for user in node.users)


def distinct_outputs(graph: fx.GraphModule, without: Collection[int]) -> list[int]:
    """Return each tensor once, and none that is an input; gives the number of each former output among the new ones.

    Args:
        graph: The graph.
        without: The numbers of outputs that nobody asks for.
    """
    for node in list(graph.graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):  # there are no gradients left to keep it from
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    (end,) = graph.graph.find_nodes(op="output")
    positions: dict[fx.Node, int] = {}
    numbers = [
        positions.setdefault(node, len(positions)) if i not in without else -1 for i, node in enumerate(end.args[0])
    ]
    with graph.graph.inserting_before(end):
        outputs = [
            call(graph, aten.clone.default, node) if node.op in ("placeholder", "get_attr") else node
            for node in positions
        ]
    end.args = (outputs,)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return numbers


def without_writes(graph: fx.GraphModule, examples: Sequence[Tensor]) -> fx.GraphModule:
    """The same function, in operations that write to nothing."""
    if not any(written_by(node) for node in graph.graph.nodes):
        return graph
    with detect_fake_mode(examples) or nullcontext():
        return make_fx(torch.func.functionalize(graph), tracing_mode="real")(*examples)


def written_input(graph: fx.GraphModule) -> str | None:
    """The name of an operation in the graph that writes to a tensor from outside it."""
    for node in graph.graph.nodes:
        if any(_is_outside(written) for written in written_by(node)):
            # In-place draws are recorded as draws and copies of these.
            writer: Any = next(filter(is_drawn, node.all_input_nodes), node)
            return str(writer.target._schema.name).removeprefix("aten::")
    return None


def is_drawn(node: fx.Node) -> bool:
    """Whether these are new random numbers."""
    return draws(node.target, node.args, node.kwargs)


def draws(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation draws random numbers when it is called so: fused attention does with dropout alone."""
    if torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()):
        return False
    given = dict(zip([argument.name for argument in function._schema.arguments], args, strict=False)) | dict(kwargs)
    rates = [a.default_value for a in function._schema.arguments if a.name == "dropout_p"]
    return not rates or bool(given.get("dropout_p", rates[0]))


def written_by(node: fx.Node) -> list[Any]:
    """The arguments that an operation writes to."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    written = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    return pytree.tree_leaves([given for given, is_written in zip(node.args, written, strict=False) if is_written])


def _is_outside(node: Any) -> bool:
    while isinstance(node, fx.Node) and is_view(node):
        (node, *_) = node.args
    return isinstance(node, fx.Node) and node.op in ("placeholder", "get_attr")


def is_view(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target.is_view


def lift_constants(graph: fx.GraphModule, find: Callable[[Tensor], Source | None]) -> list[tuple[Source, Tensor]]:
    """Turn tensors that the graph holds into further inputs, where there is a source of them; with examples."""
    lifted: dict[int, fx.Node] = {}
    found: list[tuple[Source, Tensor]] = []
    for node in graph.graph.find_nodes(op="get_attr"):
        tensor = getattr(graph, str(node.target), None)
        if not isinstance(tensor, Tensor) or (source := find(tensor)) is None:
            continue
        if id(tensor) not in lifted:
            last = graph.graph.find_nodes(op="placeholder")[-1]
            with graph.graph.inserting_after(last):
                lifted[id(tensor)] = placeholder = graph.graph.placeholder(f"constant_{len(found)}")
            placeholder.meta["val"] = node.meta.get("val", tensor)
            found.append((source, placeholder.meta["val"]))
        node.replace_all_uses_with(lifted[id(tensor)])
        graph.graph.erase_node(node)
    graph.recompile()
    return found


def drop_unused_inputs(graph: fx.GraphModule) -> list[int]:
    """Take out inputs that nothing reads; gives the numbers of the others."""
    inputs = graph.graph.find_nodes(op="placeholder")
    used = [i for i, node in enumerate(inputs) if node.users]
    for node in inputs:
        if not node.users:
            graph.graph.erase_node(node)
    graph.recompile()
    return used


def copied(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own, with the same tensors."""
    new = fx.Graph()
    new.output(new.graph_copy(graph.graph, {}))
    return fx.GraphModule(graph, new)


def base_of(node: fx.Node) -> fx.Node:
    """Where the tensor is that this one is a view of; itself otherwise."""
    while is_view(node):
        node = node.all_input_nodes[0]
    return node


def part_of(
    graph: fx.GraphModule, inputs: Iterable[fx.Node], inside: Iterable[fx.Node], results: Iterable[fx.Node]
) -> fx.GraphModule:
    """A graph of some nodes of another, given what their inputs and results are."""
    new, copies = fx.Graph(), {}
    for i, node in enumerate(inputs):
        copies[node] = new.placeholder(f"given_{i}")
        copies[node].meta = dict(node.meta)
    for node in inside:
        copies[node] = new.node_copy(node, copies.__getitem__)
    new.output([copies[node] for node in results])
    new.eliminate_dead_code()
    return fx.GraphModule(graph, new)


def call(graph: fx.GraphModule, operation: OpOverload, *arguments: Any, **options: Any) -> fx.Node:
    """Insert an operation where the graph inserts now."""
    node = graph.graph.call_function(operation, arguments, options)
    values = pytree.tree_map_only(fx.Node, lambda given: _value(graph, given), arguments)
    with detect_fake_mode(pytree.tree_leaves(values)) or nullcontext():
        node.meta["val"] = operation(*values, **options)
    return node


def _value(graph: fx.GraphModule, node: fx.Node) -> Any:
    return getattr(graph, str(node.target)) if node.op == "get_attr" and "val" not in node.meta else node.meta["val"]
