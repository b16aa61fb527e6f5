"""A drawing shows every problem and every edge, uppers above their lowers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from multilevel.configs import Config
from multilevel.engine.drawing import describe, mermaid, text
from multilevel.engine.graph import Graph
from multilevel.engine.layout import layout, rows
from multilevel.engine.picture import save_picture
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.errors import ConfigError

Edges = Sequence[tuple[str, str]]


def make(names: str, both: Edges, *, down: Edges = (), up: Edges = ()) -> Graph:
    return Graph(names.split(), upper_to_lower=[*both, *down], lower_to_upper=[*both, *up])


GRAPHS = {
    "one": make("only", []),
    "two": make("lower upper", [("upper", "lower")]),
    "diamond": make("top a b low", [("top", "a"), ("top", "b"), ("a", "low"), ("b", "low")]),
    "long edge": make("top mid low", [("mid", "low"), ("top", "mid")], up=[("top", "low")]),
    "one way": make("top mid low", [("mid", "low")], down=[("top", "low")], up=[("top", "mid")]),
    "wide": make("low a b c d", [("a", "low"), ("b", "low"), ("c", "low"), ("d", "low")]),
}

each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))


def configs(graph: Graph) -> dict[str, Config]:
    return {name: Config(unroll_steps=5) for name in graph.order}


@each_graph
def test_uppers_are_in_higher_rows_and_boxes_do_not_overlap(graph):
    placed = layout(graph)
    for upper, lower in graph.networkx.edges:
        assert placed.boxes[upper][1] > placed.boxes[lower][1]
    for row in range(placed.height + 1):
        columns = sorted(x for x, r in placed.boxes.values() if r == row)
        assert all(b - a >= 1 - 1e-9 for a, b in pairwise(columns))


@each_graph
def test_an_edge_passes_every_row_between_its_ends(graph):
    placed = layout(graph)
    for (upper, lower), route in placed.routes.items():
        between = range(placed.boxes[upper][1] - 1, placed.boxes[lower][1], -1)
        assert [row for _, row in route] == list(between)


def test_leaves_are_at_the_bottom():
    assert rows(GRAPHS["long edge"]) == {"low": 0, "mid": 1, "top": 2}


def test_a_long_edge_goes_around_the_boxes():
    placed = layout(GRAPHS["long edge"])
    ((passing, row),) = placed.routes["top", "low"]
    assert row == placed.boxes["mid"][1]
    assert abs(passing - placed.boxes["mid"][0]) > 0.5


@each_graph
def test_text_has_every_problem_once_and_every_edge_under_its_upper(graph):
    lines = text(graph, configs(graph)).splitlines()
    heads = {line.split()[1]: i for i, line in enumerate(lines) if line[:1].isdigit()}
    assert set(heads) == set(graph.order)
    for upper, lower in graph.networkx.edges:
        assert heads[upper] < heads[lower]
        below = lines[heads[upper] + 1 : heads[upper] + 1 + len(graph.lowers(upper))]
        assert sum(line.endswith(f" {lower}") for line in below) == 1


def test_text_tells_the_directions_apart():
    drawn = text(GRAPHS["one way"], configs(GRAPHS["one way"]))
    assert "⇅ low" in drawn
    assert "↓ low" in drawn
    assert "↑ mid" in drawn


def test_a_box_says_how_the_response_is_differentiated_where_there_is_an_upper():
    graph = GRAPHS["two"]
    config = {"lower": Config(type=CG(iterations=10), unroll_steps=3, warmup_steps=2), "upper": Config(type="cg")}
    upper, _, lower, *_ = text(graph, config).splitlines()
    assert lower.endswith("cg(iterations=10), unroll_steps 3, warmup_steps 2")
    assert "cg" not in upper


def test_a_method_is_described_by_what_differs_from_its_defaults():
    assert describe(Darts()) == "darts"
    assert describe(CG(iterations=10, damping=0.5)) == "cg(iterations=10, damping=0.5)"


@each_graph
def test_mermaid_has_every_problem_and_every_edge(graph):
    lines = mermaid(graph, configs(graph)).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum('["<b>' in line for line in lines) == len(graph.order)
    assert sum("-->" in line for line in lines) == len(graph.networkx.edges)


def test_mermaid_tells_the_directions_apart():
    drawn = mermaid(GRAPHS["one way"], configs(GRAPHS["one way"]))
    assert "mid <--> low" in drawn
    assert "top --> low" in drawn
    assert "mid --> top" in drawn


@each_graph
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_written(graph, ending, tmp_path):
    pytest.importorskip("matplotlib")
    save_picture(graph, configs(graph), tmp_path / f"graph.{ending}")
    start = (tmp_path / f"graph.{ending}").read_bytes()[:100]
    assert b"PNG" in start or b"<?xml" in start


def test_a_picture_that_cannot_be_written_is_a_config_error(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=r"graph\.xyz"):
        save_picture(GRAPHS["two"], configs(GRAPHS["two"]), tmp_path / "graph.xyz")
    with pytest.raises(ConfigError, match="missing"):
        save_picture(GRAPHS["two"], configs(GRAPHS["two"]), tmp_path / "missing" / "graph.png")


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"multilevel\[examples\]"):
        save_picture(GRAPHS["two"], configs(GRAPHS["two"]), Path("never.png"))
