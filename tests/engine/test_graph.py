"""The hierarchy as it is declared: what is refused, and in which order the rest steps."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from multilevel import Engine, GraphError
from multilevel.engine.graph import Graph, as_edges

from ..givens import Given, chain, square

DIAMOND = [("top", "left"), ("top", "right"), ("left", "low"), ("right", "low")]
DOUBLE = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e"), ("d", "f"), ("e", "g"), ("f", "g")]


def graph(names: str, edges: list[tuple[str, str]]) -> Graph:
    return Graph(names.split(), upper_to_lower=edges, lower_to_upper=edges)


@pytest.mark.parametrize(
    ("names", "edges", "order", "leaves"),
    [
        ("one", [], "one", "one"),
        ("top low", chain("top", "low"), "low top", "low"),
        ("low top", chain("top", "low"), "low top", "low"),
        ("a b c d", chain("a", "b", "c", "d"), "d c b a", "d"),
        ("d b a c", chain("a", "b", "c", "d"), "d c b a", "d"),
        ("top left right low", DIAMOND, "low left right top", "low"),
        ("low right left top", DIAMOND, "low right left top", "low"),
        ("u v low", [("u", "low"), ("v", "low")], "low u v", "low"),
        ("up x y z", [("up", "x"), ("up", "y"), ("up", "z")], "x y z up", "x y z"),
        ("a b c d", [("a", "b"), ("c", "d")], "b d a c", "b d"),
        ("top mid low", [*chain("top", "mid", "low"), ("top", "low")], "low mid top", "low"),
        ("g f e d c b a", DOUBLE, "g f e d c b a", "g"),
    ],
)
def test_order_and_leaves(names: str, edges: list[tuple[str, str]], order: str, leaves: str) -> None:
    found = graph(names, edges)
    assert found.order == tuple(order.split())
    assert found.leaves == tuple(leaves.split())
    for upper, lower in edges:  # whatever the order of declaration
        assert found.order.index(lower) < found.order.index(upper)
        assert lower in found.lowers(upper)
        assert upper in found.uppers(lower)
        assert lower in found.below(upper)


def test_networkx_carries_both_directions() -> None:
    found = Graph(
        ["top", "mid", "low"],
        upper_to_lower=[("top", "low"), ("mid", "low")],
        lower_to_upper=[("top", "mid"), ("mid", "low")],
    )
    assert isinstance(found.networkx, nx.DiGraph)
    assert dict(found.networkx.edges) == {
        ("top", "low"): {"upper_to_lower": True, "lower_to_upper": False},
        ("mid", "low"): {"upper_to_lower": True, "lower_to_upper": True},
        ("top", "mid"): {"upper_to_lower": False, "lower_to_upper": True},
    }
    assert found.constrained_by("top") == ("low",)
    assert found.read_by("low") == ("mid",)
    assert found.enters("mid") == ("low", "top")


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([("a", "a")], "a -> a"),
        ([("a", "b"), ("b", "a")], "a -> b -> a"),
        ([("a", "b"), ("b", "c"), ("c", "a")], "a -> b -> c -> a"),
        ([("a", "b"), ("b", "c"), ("c", "b")], "b -> c -> b"),
    ],
)
def test_cycles_are_printed_with_their_nodes(edges: list[tuple[str, str]], cycle: str) -> None:
    with pytest.raises(GraphError, match=f"form a cycle of uppers and lowers: {cycle}\\..*remove one edge"):
        graph("a b c", edges)


@pytest.mark.parametrize(
    ("u2l", "l2u", "message"),
    [
        ([("up", "low")], [], "edge up -> low has no way back up: the solution of 'low' never enters the loss of 'up'"),
        ([("top", "low"), ("mid", "low")], [("mid", "low")], "edge top -> low has no way back up"),
        ([("top", "mid"), ("mid", "low")], [("top", "mid")], "edge mid -> low has no way back up"),
    ],
)
def test_dead_ends(u2l: list[tuple[str, str]], l2u: list[tuple[str, str]], message: str) -> None:
    names = sorted({name for edge in (*u2l, *l2u) for name in edge})
    with pytest.raises(GraphError, match=message):
        Graph(names, upper_to_lower=u2l, lower_to_upper=l2u)


def test_the_way_back_up_may_lead_through_others() -> None:
    Graph(["top", "mid", "low"], upper_to_lower=[("top", "low")], lower_to_upper=[("mid", "low"), ("top", "mid")])


def test_as_edges() -> None:
    assert as_edges({"u": ["v", "w"]}, upper_first=True) == [("u", "v"), ("u", "w")]
    assert as_edges({"v": ["u", "w"]}, upper_first=False) == [("u", "v"), ("w", "v")]


def problems(*names: str) -> list[Given]:
    return [Given(name, square) for name in names]


def declared(names: str, dependencies: Any = None, *, edges: Any = None) -> Engine:
    return Engine(problems(*names.split()), dependencies, edges=edges)


def test_objects_and_names_say_the_same() -> None:
    up, low = problems("up", "low")
    spellings: list[dict[str, Any]] = [
        {"dependencies": {"u2l": {up: [low]}, "l2u": {low: [up]}}},
        {"dependencies": {"u2l": {"up": ["low"]}, "l2u": {low: ["up"]}}},
        {"dependencies": {"u2l": {up: low}, "l2u": {"low": "up"}}},
        {"edges": [(up, low)]},
        {"edges": [("up", "low")]},
        {"edges": [["up", low]]},
    ]
    graphs = [Engine([up, low], **spelling).graph.networkx for spelling in spellings]
    assert all(nx.utils.graphs_equal(g, graphs[0]) for g in graphs)


def test_two_spellings_of_one_problem_add_up() -> None:
    up, v, w = problems("up", "v", "w")
    engine = Engine([up, v, w], {"u2l": {up: [v], "up": [w]}, "l2u": {v: [up], w: [up]}})
    assert engine.graph.constrained_by("up") == ("v", "w")


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ("up low", {}, r"2 problems and no edges between them; pass edges=\[\(upper, lower\), ...\]"),
        ("up low", {"edges": []}, "problem 'up' is on no edge, so it would never meet the others"),
        ("up low", {"dependencies": {}}, "problem 'up' is on no edge"),
        ("up low alone", {"edges": [("up", "low")]}, "problem 'alone' is on no edge"),
        ("up low", {"edges": [("up", "lwo")]}, "problem 'lwo' is unknown; did you mean 'low'. problems: low, up"),
        ("up low", {"dependencies": {"u2l": {"upp": ["low"]}}}, "problem 'upp' is unknown; did you mean 'up'"),
        ("up up", {"edges": [("up", "up")]}, "two problems are named 'up'"),
        ("up", {"edges": [("up", "up")]}, "cycle.*up -> up"),
        ("up low", {"edges": [("up", "low"), ("low", "up")]}, "cycle.*: up -> low -> up"),
        ("up low", {"edges": ["up"]}, r"each must be a pair \(upper, lower\), got 'up'"),
        ("up low", {"edges": [("up", "low", "low")]}, "each must be a pair"),
        ("up low", {"edges": [3]}, "each must be a pair.*got 3"),
        (
            "up low",
            {"dependencies": [("up", "low")]},
            r"must be a mapping with the keys 'u2l' and 'l2u', got list.*edges=",
        ),
        ("up low", {"dependencies": {"ul2": {}}}, "unknown key 'ul2'; did you mean 'u2l'. keys: l2u, u2l"),
        (
            "up low",
            {"dependencies": {"u2l": [("up", "low")]}},
            r"\['u2l'\] must be a mapping {upper: \[lowers\]}, got list",
        ),
        (
            "up low",
            {"dependencies": {"u2l": {"up": None}}},
            r"\['u2l'\]: expected a list of problems or names, got None",
        ),
        ("up low", {"dependencies": {"u2l": {"up": ["low"]}}}, "edge up -> low has no way back up"),
        # The two dictionaries disagree about who is above whom.
        ("up low", {"dependencies": {"u2l": {"up": ["low"]}, "l2u": {"up": ["low"]}}}, "cycle.*check that 'u2l' lists"),
        ("up low", {"dependencies": {}, "edges": []}, "give either dependencies or edges, not both"),
        ("", {}, "at least one problem is needed, got none"),
    ],
)
def test_declarations_that_are_refused(names: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Engine(problems(*names.split()), **arguments)


def test_a_problem_on_an_edge_must_be_passed() -> None:
    up, low, other = problems("up", "low", "other")
    with pytest.raises(GraphError, match=r"problem 'other' is on an edge but was not passed to Engine\(\[...\]\)"):
        Engine([up, low], edges=[(up, low), (up, other)])


def test_another_object_of_the_same_name() -> None:
    up, low, other = problems("up", "low", "low")
    with pytest.raises(GraphError, match="problem 'low' on an edge is another object than the one passed"):
        Engine([up, low], edges=[(up, other)])


def test_only_problems_are_accepted() -> None:
    with pytest.raises(GraphError, match="expected Problem objects, got str"):
        Engine(["up"])  # type: ignore[list-item]


def test_an_engine_finds_problems_by_name() -> None:
    engine = declared("up low", edges=[("up", "low")])
    assert engine["low"].name == "low"
    with pytest.raises(GraphError, match="no problem is named 'lwo'; did you mean 'low'"):
        engine["lwo"]


def test_dictionaries_that_are_both_swapped_turn_the_hierarchy_around() -> None:
    """Nothing tells them from a hierarchy that is meant; the graph shows it."""
    engine = declared("up low", {"u2l": {"low": ["up"]}, "l2u": {"up": ["low"]}})
    assert engine.graph.order == ("up", "low")
