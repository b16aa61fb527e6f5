"""The workloads by name, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..case import Row, Setting
from . import chain, ladder, logistic, one_parameter, reweighting, transformer

WORKLOADS: Mapping[str, Callable[[Setting], list[Row]]] = {
    "W1": logistic.rows,
    "W2": reweighting.rows,
    "W3": reweighting.wide_rows,
    "W4": reweighting.solver_rows,
    "W5": chain.rows,
    "W6": one_parameter.rows,
    "W7": transformer.rows,
    "W8": ladder.rows,
}

LARGE = ("W3", "W7")
"""Those that have a size which fills a GPU."""
