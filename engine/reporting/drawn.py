"""The parts of a run's page that are drawn: the graph, and the curves."""

from __future__ import annotations

from collections.abc import Mapping

from ...configs.config import Config
from ...hypergrad.errors import ConfigError
from ..drawing import caption
from ..picture import NOTES
from .folders import Group
from .levels import colours_of, levels_of, lines_of
from .look import new_figure
from .markup import Html, element, section, table
from .panel import draw_panel
from .records import RunRecord
from .vector import COLOURS, graph_svg, inline_svg
from .wording import counted, short

PANEL = (4.0, 2.25)
"""Inches, of one metric's curve."""


def graph(run: RunRecord) -> Html:
    """The picture of the graph, and the same in words."""
    found = run.graph()
    if run.loaded is None or found is None:
        return section(
            "Graph", element("p", "There is no readable config.yaml, which says what the graph is.", class_="note")
        )
    problems = run.loaded.experiment.problems
    configs: Mapping[str, Config] = {name: problem.config for name, problem in problems.items()}
    rows = []
    for name in reversed(found.order):
        optimizer = problems[name].optimizer
        rate = f", lr {optimizer.kwargs['lr']}" if optimizer and "lr" in optimizer.kwargs else ""
        rows.append(
            (
                name,
                ", ".join(caption(found, name, configs[name])) or "-",
                f"{optimizer.class_.rpartition('.')[2]}{rate}" if optimizer else "its own",
            )
        )
    words = table("Levels, top first", ("level", "its response", "optimizer"), rows)
    edges = ", ".join(f"{upper} above {lower}" for upper, lower in found.networkx.edges) or "a single problem"
    try:
        picture = element("figure", graph_svg(found, configs, f"Graph of the problems: {edges}"))
    except ConfigError as reason:
        picture = element("p", f"The graph cannot be drawn: {reason}", class_="note")
    notes = element("p", "; ".join(NOTES) + ".", class_="note") if found.networkx.edges else Html()
    return section("Graph", element("div", picture, element("div", words, notes), class_="beside"))


def curves(run: RunRecord) -> Html:
    """A panel for each metric, level by level."""
    groups = [Group(run.name, [run])]
    try:
        levels = levels_of(groups)
    except ConfigError:
        return section("Curves", element("p", "No metrics were written.", class_="note"))
    colours = colours_of(groups, levels)
    parts: list[Html] = []
    for number, level in enumerate(levels):
        panels = []
        for i, metric in enumerate(level.metrics):
            figure = new_figure(*PANEL)
            lines = lines_of(groups, level, metric, colours)
            draw_panel(figure.add_axes((0.155, 0.12, 0.805, 0.745)), metric, lines, run.steps)
            last = lines[0].line.means[-1:]
            ends = f", at last {short(last[0])}" if last else ""
            label = f"Curve of {metric} of {level.title} over {counted(run.steps)} engine steps{ends}"
            panels.append(element("figure", inline_svg(figure, label, f"curve-{number}-{i}-")))
        chip = element("span", class_="chip", style=f"background: {COLOURS[colours[level.name]]}")
        heading, inside = element("h3", chip, level.title), element("div", *panels, class_="panels")
        parts.append(element("div", heading, inside, style=f"flex: {len(panels)} 1 {19 * min(len(panels), 3)}rem"))
    note = element("p", "Against engine steps. A band spans the values that one point stands for.", class_="note")
    return section("Curves", element("div", *parts, class_="levels"), note)
