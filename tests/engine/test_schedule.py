"""Who steps when: the level steps of every problem, counted."""

from __future__ import annotations

from typing import Any

import pytest

from multilevel import Callback, Engine, Problem

from ..givens import hierarchy

TWO = {"up": ["low"]}
THREE = {"top": ["mid"], "mid": ["low"]}
FOUR = {"a": ["b"], "b": ["c"], "c": ["d"]}
DIAMOND = {"top": ["left", "right"], "left": ["low"], "right": ["low"]}


class Watch(Callback):
    """Writes down who stepped, a word an engine step."""

    def __init__(self) -> None:
        self.words: list[str] = [""]

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Any) -> None:
        self.words[-1] += problem.name[0]

    def on_step_end(self, engine: Engine) -> None:
        self.words.append("")


@pytest.mark.filterwarnings("ignore:problems left, right constrain")
@pytest.mark.parametrize(
    ("graph", "configs", "steps", "words"),
    [
        ({"one": []}, {}, 3, "o o o"),
        (TWO, {}, 3, "lu lu lu"),
        (TWO, {"low": {"unroll_steps": 3}}, 7, "l l lu l l lu l"),
        (TWO, {"low": {"unroll_steps": 2, "warmup_steps": 3}}, 8, "l l l l lu l lu l"),
        (TWO, {"low": {"warmup_steps": 1}}, 3, "l lu lu"),
        (TWO, {"low": {"gradient_accumulation": 2, "unroll_steps": 2}}, 9, "l l l lu l l l lu l"),
        (TWO, {"low": {"gradient_accumulation": 2, "warmup_steps": 1}}, 5, "l l l lu l"),
        (TWO, {"up": {"gradient_accumulation": 2}}, 3, "lu lu lu"),
        ({"up": ["v", "w"]}, {"v": {"unroll_steps": 2}, "w": {"unroll_steps": 3}}, 9, "vw vw vwu vw vw vwu vw vw vwu"),
        ({"up": ["v", "w"]}, {"v": {"unroll_steps": 2}}, 4, "vw vwu vw vwu"),
        ({"up": ["v", "w"]}, {"w": {"warmup_steps": 2}}, 4, "vw vw vwu vwu"),
        ({"u": ["low"], "v": ["low"]}, {"low": {"unroll_steps": 2}}, 4, "l luv l luv"),
        # Two uppers of one lower with different needs: v also waits for the slow one.
        ({"u": ["low"], "v": ["low", "slow"]}, {"slow": {"unroll_steps": 3}}, 6, "lsu lsu lsuv lsu lsu lsuv"),
        (THREE, {"low": {"unroll_steps": 2}, "mid": {"unroll_steps": 2}}, 8, "l lm l lmt l lm l lmt"),
        (THREE, {"mid": {"warmup_steps": 2, "unroll_steps": 2}}, 6, "lm lm lm lmt lm lmt"),
        (THREE, {"mid": {"gradient_accumulation": 2}}, 4, "lm lmt lm lmt"),
        (THREE | {"top": ["mid", "low"]}, {"mid": {"unroll_steps": 3}}, 6, "lm lm lmt lm lm lmt"),
        (FOUR, {"d": {"unroll_steps": 2}, "b": {"unroll_steps": 2}}, 8, "d dcb d dcba d dcb d dcba"),
        (FOUR, {n: {"unroll_steps": 2} for n in "bcd"}, 8, "d dc d dcb d dc d dcba"),
        (DIAMOND, {}, 2, "llrt llrt"),
        (DIAMOND, {"left": {"unroll_steps": 2}, "right": {"unroll_steps": 3}}, 6, "llr llr llrt llr llr llrt"),
        (DIAMOND, {"low": {"unroll_steps": 2}, "right": {"warmup_steps": 1}}, 6, "l llr l llrt l llrt"),
    ],
)
def test_who_steps_when(graph: dict[str, list[str]], configs: dict[str, Any], steps: int, words: str) -> None:
    engine = hierarchy(graph, **configs)
    watch = Watch()
    engine.callbacks.callbacks.append(watch)
    for _ in range(steps):
        engine.step()
    assert watch.words[:-1] == words.split()
    for name, problem in engine.problems.items():
        stepped = engine.problems[name].count
        size = problem.config.gradient_accumulation
        assert problem.level.update.steps == stepped // size
    assert sum(p.count for p in engine.problems.values()) == len("".join(watch.words))


@pytest.mark.parametrize(
    ("configs", "starts"),
    [
        ({}, {"low": 4, "mid": 4, "top": 4}),
        ({"low": {"unroll_steps": 2}}, {"low": 2, "mid": 2, "top": 2}),
        ({"mid": {"unroll_steps": 2}}, {"low": 4, "mid": 2, "top": 2}),
        ({"low": {"warmup_steps": 2, "unroll_steps": 2}}, {"low": 2, "mid": 1, "top": 1}),
        ({"low": {"gradient_accumulation": 2}}, {"low": 2, "mid": 2, "top": 2}),
    ],
)
def test_inner_loops_start_after_the_uppers_were_told(configs: dict[str, Any], starts: dict[str, int]) -> None:
    engine = hierarchy(THREE, **configs)
    for _ in range(4):
        engine.step()
    assert {name: engine[name].events.count("start") for name in starts} == starts


def test_the_schedule_can_be_taken_up() -> None:
    configs: dict[str, Any] = {"low": {"unroll_steps": 2, "warmup_steps": 1}, "mid": {"unroll_steps": 2}}
    reference = hierarchy(THREE, **configs)
    watch = Watch()
    reference.callbacks.callbacks.append(watch)
    for _ in range(12):
        reference.step()
    for stop in range(12):
        first, second = hierarchy(THREE, **configs), hierarchy(THREE, **configs)
        for _ in range(stop):
            first.step()
        rest = Watch()
        second.callbacks.callbacks.append(rest)
        second.load_state_dict(first.state_dict())
        for _ in range(12 - stop):
            second.step()
        assert rest.words[:-1] == watch.words[stop:-1]
