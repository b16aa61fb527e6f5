"""The graph of a hierarchy as text and as Mermaid; :mod:`.picture` draws it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..configs.config import Config
from ..hypergrad.method import Method
from .graph import LOWER_TO_UPPER, UPPER_TO_LOWER, Edge, Graph
from .layout import rows

BOTH, DOWN, UP = "⇅", "↓", "↑"
LEGEND = {
    BOTH: "both of these",
    DOWN: "the upper's parameters enter the lower's loss",
    UP: "the lower's solution enters the upper's loss",
}


def describe(method: Method) -> str:
    """A method by its name and the options that differ from their defaults: ``cg(iterations=10)``."""
    changed = [
        f"{field.name}={getattr(method, field.name)!r}"
        for field in dataclasses.fields(method)  # type: ignore[arg-type]
        if field.repr and getattr(method, field.name) != field.default
    ]
    return f"{method.name}({', '.join(changed)})" if changed else method.name


def caption(graph: Graph, name: str, config: Config) -> list[str]:
    """What there is to say about a problem: how its response is differentiated, and how often it steps."""
    if not graph.uppers(name):
        return ["outermost"] if len(graph.order) > 1 else []
    warmup = f", warmup_steps {config.warmup_steps}" if config.warmup_steps else ""
    return [describe(config.method), f"unroll_steps {config.unroll_steps}{warmup}"]


def arrow(graph: Graph, edge: Edge) -> str:
    """How one edge is written."""
    kinds = graph.networkx.edges[edge]
    return BOTH if kinds[UPPER_TO_LOWER] and kinds[LOWER_TO_UPPER] else DOWN if kinds[UPPER_TO_LOWER] else UP


def text(graph: Graph, configs: Mapping[str, Config]) -> str:
    """The graph for a terminal: top row first, under each problem the lowers that it is joined to."""
    row = rows(graph)
    width = max(len(name) for name in graph.order)
    lines: list[str] = []
    for name in sorted(graph.order, key=lambda name: (-row[name], graph.order.index(name))):
        lines.append(f"{row[name]}  {name:{width}}  {', '.join(caption(graph, name, configs[name]))}".rstrip())
        lowers = graph.lowers(name)
        for lower in lowers:
            branch = "└" if lower == lowers[-1] else "├"
            lines.append(f"   {branch}─ {arrow(graph, (name, lower))} {lower}")
    used = {arrow(graph, edge) for edge in graph.networkx.edges}
    shown = {DOWN, UP, BOTH} if BOTH in used else used
    lines += ["", *(f"{sign} {meaning}" for sign, meaning in reversed(LEGEND.items()) if sign in shown)] if used else []
    return "\n".join(lines)


def mermaid(graph: Graph, configs: Mapping[str, Config]) -> str:
    """The graph as a Mermaid flowchart, which GitHub renders."""
    lines = ["flowchart TD"]
    for name in reversed(graph.order):
        words = "<br/>".join([f"<b>{name}</b>", *caption(graph, name, configs[name])])
        lines.append(f'    {name}["{words.replace(chr(34), "#quot;")}"]')
    for upper, lower in graph.networkx.edges:
        sign = arrow(graph, (upper, lower))
        if sign == UP:
            lines.append(f"    {upper} ~~~ {lower}")  # an invisible link keeps the upper above
            lines.append(f"    {lower} --> {upper}")
        else:
            lines.append(f"    {upper} {'<-->' if sign == BOTH else '-->'} {lower}")
    return "\n".join(lines)
