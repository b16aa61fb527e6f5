"""Pieces of HTML from plain values, each escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as HTML: escaped, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def attributes(**values: object) -> Html:
    """Attributes with a space in front of each: ``class_="x", aria_label="y"`` is `` class="x" aria-label="y"``."""
    names = {name: name.rstrip("_").replace("_", "-") for name in values}
    return Html("".join(f' {names[name]}="{escape(str(value))}"' for name, value in values.items()))


def element(name: str, *content: object, **values: object) -> Html:
    """An element with its content, each part escaped unless it is HTML already."""
    return Html(f"<{name}{attributes(**values)}>{''.join(map(text, content))}</{name}>")


def joined(parts: Iterable[Html], between: str = "\n") -> Html:
    """Several elements in a row."""
    return Html(between.join(parts))


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> Html:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        title: What it is a table of; read aloud, not shown.
        header: Names of the columns.
        rows: Cells; the first of each row is its header.
        numbers: Whether the other columns are numbers, which stand on the right.
    """
    head = element("tr", *(element("th", name, scope="col") for name in header))
    lines = []
    for first, *rest in rows:
        lines.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest)))
    caption = element("caption", title, class_="aside")
    inner = element("table", caption, element("thead", head), element("tbody", *lines))
    kind = "scroll numbers" if numbers else "scroll"
    return element("div", inner, class_=kind, role="region", aria_label=title, tabindex=0)


def section(title: str, *content: object, **values: object) -> Html:
    """A part of the page under a heading."""
    name = title.lower().replace(" ", "-")
    heading = element("h2", title, id=name)
    return element("section", heading, *content, aria_labelledby=name, **values)
