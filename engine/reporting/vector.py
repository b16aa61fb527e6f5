"""Figures as SVG inside a page: text stays text, and the colours are those of the page, light or dark."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ...configs.config import Config
from ..graph import Graph
from ..layout import layout
from ..picture import BORDERS, BOX_WIDTH, COLUMN, FILLS, INK, LINE, MARGIN, NOTE, NOTES, save_picture
from ..picture import MUTED as SOFT
from .look import GRID, LOST, MUTED, VALIDATION
from .markup import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "#ffffff": "none",
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    SOFT: "var(--soft)",
    LINE: "var(--edge)",
    GRID: "var(--grid)",
    LOST: "var(--bad)",
    VALIDATION: "var(--validation)",
    **{colour: f"var(--fill-{i})" for i, colour in enumerate(FILLS)},
    **{colour: f"var(--level-{i})" for i, colour in enumerate(BORDERS)},
}
"""What each colour of a figure is called in the style sheet of the page."""
SHRINK = 0.75
"""Down to this share of its size a figure follows the width of the screen; from there on it scrolls."""
COLOUR = re.compile("|".join(COLOURS))
FONT = re.compile(r"font-family:[^;]*;? ?|(?<=px )'[^;]*")
TARGET = re.compile(r"^(?:url\()?#([^)]+)\)?$")


def inline_svg(figure: Figure, label: str, prefix: str) -> Html:
    """A figure as an element of a page.

    Args:
        figure: The figure.
        label: What it shows, for those who do not see it.
        prefix: In front of every id, of which a page may have only one each.
    """
    buffer = io.BytesIO()
    with _text_as_text():
        figure.savefig(buffer, format="svg", transparent=True)
    return _written(_adopted(buffer.getvalue().decode(), label, prefix))


def graph_svg(graph: Graph, configs: Mapping[str, Config], label: str) -> Html:
    """The picture of a graph as an element of a page, without the notes below it and the room that they need."""
    with tempfile.TemporaryDirectory() as folder, _text_as_text():
        path = Path(folder) / "graph.svg"
        save_picture(graph, configs, path)
        root = _adopted(path.read_text(encoding="utf-8"), label, "graph-")
    _, _, width, height = map(float, root.get("viewBox", "").split())
    needed = 72 * (layout(graph).width * COLUMN + BOX_WIDTH + 2 * MARGIN)
    if graph.networkx.edges:
        height -= 72 * NOTE
    for parent in list(root.iter()):
        parent[:] = [child for child in parent if child.text not in NOTES]
    _set_view(root, (width - needed) / 2, needed, height)
    return _written(root)


def _text_as_text() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context({"svg.fonttype": "none", "svg.hashsalt": "multilevel"})


def _adopted(svg: str, label: str, prefix: str) -> ElementTree.Element:
    """Only the drawing: no metadata or style sheet, fonts of the page, ids that nothing else in it has."""
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.get("viewBox", "0 0 1 1").split()[2:])
    targets = {name for node in root.iter() for value in node.attrib.values() for name in TARGET.findall(value)}
    for node in list(root.iter()):
        node.tag = node.tag.rpartition("}")[2]
        node[:] = [child for child in node if child.tag.rpartition("}")[2] not in ("metadata", "style")]
        node.attrib = dict(_attributes(node.attrib, targets, prefix))
        node.tail = None
        node.text = node.text if node.tag == "text" else None
    root.attrib = {"role": "img", "aria-label": label, "stroke-linejoin": "round"}
    _set_view(root, 0, width, height)
    return root


def _set_view(root: ElementTree.Element, left: float, width: float, height: float) -> None:
    """Show a part of the drawing; its size is that on paper, and a narrow screen may shrink it a little."""
    root.set("viewBox", f"{left:g} 0 {width:g} {height:g}")
    root.set("style", f"width: {width / 72:.2f}in; min-width: {SHRINK * width / 72:.2f}in")


def _written(root: ElementTree.Element) -> Html:
    return Html(ElementTree.tostring(root, encoding="unicode"))


def _attributes(found: Mapping[str, str], targets: set[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        name = name.rpartition("}")[2]
        if name == "id":
            if value in targets:
                yield name, prefix + value
        elif name == "style":
            yield name, COLOUR.sub(lambda match: COLOURS[match[0]], FONT.sub("", value))
        elif not (name == "transform" and value.startswith("rotate(-0 ")):
            yield name, " ".join(TARGET.sub(lambda match: match[0].replace("#", f"#{prefix}"), value).split())
