"""Who may step: counters of inner loops, and which lowers have told which upper that they are done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..problems.problem import Problem
from .graph import Graph


class Schedule:
    """Readiness of every problem.

    A problem reports to its uppers after each ``unroll_steps`` of its optimizer steps, once ``warmup_steps`` are over.
    An upper may advance when all its lowers have reported since it last did.

    Args:
        graph: The hierarchy.
        problems: The problems by name.
    """

    def __init__(self, graph: Graph, problems: Mapping[str, Problem]) -> None:
        self._graph = graph
        self._config = {name: problem.config for name, problem in problems.items()}
        self._steps = dict.fromkeys(graph.order, 0)
        self._waiting = {name: set(graph.lowers(name)) for name in graph.order}
        self._starting = dict.fromkeys(graph.order, True)

    def ready(self, name: str) -> bool:
        """Whether all lowers have reported; always true of a leaf."""
        return not self._waiting[name]

    def starts_inner_loop(self, name: str) -> bool:
        """Whether the next level step of this problem begins an inner loop; asking answers for that step only."""
        starting, self._starting[name] = self._starting[name], False
        return starting

    def advanced(self, name: str) -> None:
        """A problem took a level step: its lowers must report anew."""
        self._waiting[name] = set(self._graph.lowers(name))

    def warmed_up(self, name: str) -> bool:
        """Whether the problem's last optimizer step was the last of its warm-up."""
        return self._steps[name] == self._config[name].warmup_steps > 0

    def stepped(self, name: str) -> None:
        """A problem's optimizer stepped: perhaps its inner loop is complete."""
        self._steps[name] += 1
        config = self._config[name]
        beyond = self._steps[name] - config.warmup_steps
        if beyond >= 0 and beyond % config.unroll_steps == 0:
            self._starting[name] = True
            for upper in self._graph.uppers(name) if beyond > 0 else ():
                self._waiting[upper].discard(name)

    def state_dict(self) -> dict[str, Any]:
        """Counters and readiness."""
        waiting = {name: sorted(lowers) for name, lowers in self._waiting.items()}
        return {"steps": dict(self._steps), "waiting": waiting, "starting": dict(self._starting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._steps = dict(state["steps"])
        self._waiting = {name: set(lowers) for name, lowers in state["waiting"].items()}
        self._starting = dict(state["starting"])


def start_inner_loop(problem: Problem) -> None:
    """Begin an inner loop: tell the problem, and let it go to its initial parameters."""
    problem.on_inner_loop_start()
    problem.level.start_inner_loop()
