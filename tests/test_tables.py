"""The tables in the documentation are those that the code computes.

``make tables`` (or MULTILEVEL_WRITE_TABLES=1 pytest tests/test_tables.py) writes them anew, in place: the text around
them is written by hand.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .tables import PAGES, SMALLEST, markdown, parsed

DOCS = Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
NUMBER = re.compile(r"\d\.\d+e[+-]\d+|< \de-\d+")


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_up_to_date(page: str) -> None:
    path = DOCS / page
    computed = PAGES[page]()
    if os.environ.get("MULTILEVEL_WRITE_TABLES"):
        tables = iter(computed)
        path.write_text(TABLE.sub(lambda _: markdown(next(tables)) + "\n", path.read_text()))
    committed = [parsed(table) for table in TABLE.findall(path.read_text())]
    different = [
        f"{row[0]} / {head}: the page says {said}, the code {is_so}"
        for old, new in zip(committed, computed, strict=True)
        for old_row, row in zip(old, new, strict=True)
        for head, said, is_so in zip(new[0], old_row, row, strict=True)
        if not agree(said, is_so)
    ]
    assert not different, f"docs/{page} is out of date; run 'make tables':\n" + "\n".join(different)


def agree(said: str, is_so: str) -> bool:
    """The same words, and numbers that round alike: machines differ in the last digit shown."""
    if NUMBER.sub("#", said) != NUMBER.sub("#", is_so):
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(is_so), strict=True)
    return all(abs(value(a) - value(b)) <= 0.1 * max(value(a), value(b)) for a, b in pairs)


def value(text: str) -> float:
    return max(float(text.removeprefix("< ")), 2 * SMALLEST)


@pytest.mark.parametrize(
    ("said", "is_so", "same"),
    [
        ("1.0e-01 (-)", "1.1e-01 (-)", True),
        ("1.0e-01 (-)", "1.3e-01 (-)", False),
        ("< 1e-09 (< 1e-09)", "1.1e-09 (< 1e-09)", True),
        ("< 1e-09", "4.0e-09", False),
        ("1.0e-01 (-)", "1.0e-01 (1.0e-01)", False),
        ("12 / 3 / 0", "12 / 4 / 0", False),
    ],
)
def test_rounding_is_forgiven_and_nothing_else(said: str, is_so: str, same: bool) -> None:
    assert agree(said, is_so) is same
