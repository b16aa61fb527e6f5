"""Who responds to whom, read off the graph."""

from __future__ import annotations

import warnings

import pytest

from multilevel import NumericsWarning
from multilevel.engine.graph import Graph
from multilevel.engine.relations import Relations

from ..givens import chain

Edges = list[tuple[str, str]]
BOTH = chain("top", "mid", "low")
DIAMOND = [("top", "left"), ("top", "right"), ("left", "low"), ("right", "low")]


def relations(u2l: Edges, l2u: Edges | None = None) -> Relations:
    names = dict.fromkeys(name for edge in (*u2l, *(l2u or ())) for name in edge)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Relations(Graph(names, upper_to_lower=u2l, lower_to_upper=u2l if l2u is None else l2u))


@pytest.mark.parametrize(
    ("u2l", "l2u", "problem", "followers", "inside", "inputs"),
    [
        # Two levels.
        ([("up", "low")], None, "up", "low", "low", ""),
        ([("up", "low")], None, "low", "", "", "up"),
        # Three: mid responds with low inside, then low to that mid.
        (BOTH, None, "top", "mid low", "mid low", ""),
        (BOTH, None, "mid", "low", "low", "top"),
        (BOTH, None, "low", "", "", "mid"),
        # The same where top reads low too.
        (BOTH, [*BOTH, ("top", "low")], "top", "mid low", "mid low", ""),
        # top constrains low too: low's response depends on both.
        ([*BOTH, ("top", "low")], None, "top", "mid low", "mid low", ""),
        ([*BOTH, ("top", "low")], None, "mid", "low", "low", "top"),
        ([*BOTH, ("top", "low")], None, "low", "", "", "mid top"),
        # One upper, several lowers, independent of each other.
        ([("up", "x"), ("up", "y")], None, "up", "x y", "y x", ""),
        # Two uppers of one lower: each holds the other.
        ([("u", "low"), ("v", "low")], None, "u", "low", "low", "v"),
        ([("u", "low"), ("v", "low")], None, "low", "", "", "u v"),
        # A middle problem whose only role is to respond: its solution goes down, not up.
        ([("top", "mid"), ("mid", "low")], [("mid", "low"), ("top", "low")], "top", "mid low", "mid low", ""),
        # A pipeline: low is solved for top's sake, and mid only reads it.
        ([("top", "low")], [("mid", "low"), ("top", "mid")], "top", "low mid", "low mid", ""),
        ([("top", "low")], [("mid", "low"), ("top", "mid")], "mid", "", "", "low"),
        # An upper that reads a lower which nothing of it reaches.
        ([("mid", "low")], [("mid", "low"), ("top", "low"), ("top", "mid")], "top", "", "", "low mid"),
        # A diamond whose sides constrain different things below: no game.
        (
            [("top", "left"), ("top", "right"), ("left", "low")],
            [("top", "left"), ("top", "right"), ("left", "low"), ("right", "low")],
            "top",
            "left low right",
            "left low right",
            "",
        ),
        (chain("a", "b", "c", "d"), None, "a", "b c d", "b c d", ""),
        (chain("a", "b", "c", "d"), None, "c", "d", "d", "b"),
    ],
)
def test_relations(u2l: Edges, l2u: Edges | None, problem: str, followers: str, inside: str, inputs: str) -> None:
    found = relations(u2l, l2u)
    assert found.followers(problem) == set(followers.split())
    assert found.inside[problem] == tuple(inside.split())
    assert set(found.inputs[problem]) == set(inputs.split())
    assert found.held[problem] == {}


def test_siblings_that_constrain_one_lower_play_a_game() -> None:
    graph = Graph(["top", "left", "right", "low"], upper_to_lower=DIAMOND, lower_to_upper=DIAMOND)
    with pytest.warns(NumericsWarning, match="problems left, right constrain a common lower.*a game below 'top'"):
        found = Relations(graph)
    assert found.held["top"] == {"left": frozenset({"right"}), "right": frozenset({"left"})}
    assert set(found.inside["top"][:2]) == {"left", "right"}
    assert found.inside["top"][2] == "low"
    assert found.held["left"] == found.held["low"] == {}


@pytest.mark.parametrize("u2l", [BOTH, [*BOTH, ("top", "low")], chain("a", "b", "c", "d", "e")])
def test_inside_is_ordered_by_who_responds_to_whom(u2l: Edges) -> None:
    found = relations(u2l, [*u2l, (u2l[0][0], u2l[-1][1])])
    for members in found.inside.values():
        for i, member in enumerate(members):
            assert not set(found.inputs[member]) & set(members[i + 1 :])


def ladder(rungs: int) -> tuple[Edges, Edges]:
    """Diamonds on top of each other: the corner of each reads its two sides, which read the corner below."""
    values: Edges = []
    for i in range(rungs):
        values += [(f"n{i}", f"l{i}"), (f"n{i}", f"r{i}"), (f"l{i}", f"n{i + 1}"), (f"r{i}", f"n{i + 1}")]
    return [("n0", f"n{rungs}")], values


def test_a_ladder_of_diamonds_is_linear() -> None:
    u2l, l2u = ladder(12)
    found = relations(u2l, l2u)
    assert len(found.inside["n0"]) == 36
    assert found.inside["n0"][0] == "n12"
    position = {name: i for i, name in enumerate(found.inside["n0"])}
    for upper, lower in l2u:
        if upper != "n0":
            assert position[lower] < position[upper]
