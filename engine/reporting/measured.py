"""The parts of a run's page that are tables of measurements: times, and an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Html, element, section, table
from .records import TIMES, RunRecord
from .wording import counted, percent, short, spent

PARTS = {
    "data": "data",
    "forward": "forward",
    "backward": "direct gradient",
    "sweep": "hypergradient",
    "update": "update",
    "compile": "compiling",
}
"""What the parts of a level's time are called."""
NUMBERS = ("cosine", "norm_ratio", "relative_error", "seconds", "peak_bytes")
"""Of a row of an audit."""


def timing(run: RunRecord) -> Html:
    """Where the time of each level went."""
    if not run.timing:
        why = "" if run.finished else ": the run has not come to its end"
        return section("Timing", element("p", f"There is no timing.json{why}.", class_="note"))
    levels = {name: run.timing[name] for name in run.levels() if name in run.timing}
    totals = {name: sum(times.get(part, 0.0) for part in TIMES) for name, times in levels.items()}
    parts = [part for part in TIMES if part != "compile" or any(times.get(part) for times in levels.values())]
    together = sum(totals.values())
    sweeps = sum(times.get("sweep", 0.0) for times in levels.values())
    rows = [
        (
            name,
            counted(times.get("steps", 0)),
            *(spent(times.get(part, 0.0)) for part in parts),
            spent(totals[name]),
            percent(times.get("sweep", 0.0), totals[name]),
        )
        for name, times in levels.items()
    ]
    header = ("level", "steps", *(PARTS[part] for part in parts), "total", "on hypergradients")
    says = f"{percent(sweeps, together)} of {spent(together)} in level steps was spent on hypergradients."
    legend = element("ul", *(element("li", _chip(part), PARTS[part]) for part in parts), class_="legend")
    bars = element("div", *(cell for name in levels for cell in _bar(name, levels[name], totals)), class_="bars")
    return section("Timing", element("p", says), legend, bars, table("Time by level", header, rows, numbers=True))


def _bar(name: str, times: Mapping[str, float], totals: Mapping[str, float]) -> list[Html]:
    """A level's name and its bar, as long as its share of the longest."""
    most, total = max(totals.values()), totals[name]
    words = ", ".join(f"{PARTS[part]} {percent(times.get(part, 0.0), total)}" for part in TIMES if times.get(part))
    parts = [
        element("span", class_=f"key-{part}", style=f"flex: {times.get(part, 0.0) / total:.5f} 0 0")
        for part in TIMES
        if total and times.get(part, 0.0)
    ]
    width = f"width: {100 * total / most if most else 0:.2f}%"
    bar = element("div", *parts, class_="bar", role="img", aria_label=f"{name}: {words}", style=width)
    return [element("span", name), bar]


def _chip(part: str) -> Html:
    return element("span", class_=f"chip key-{part}")


def audit(run: RunRecord) -> Html:
    """What an audit found, where there was one."""
    if run.audit is None:
        return Html()
    found = run.audit
    verdict = [element("li", line) for line in _listed(found, "verdict")]
    rows = [row for row in _listed(found, "rows") if isinstance(row, dict)]
    several = len({row.get("level") for row in rows}) > 1
    header = ["method", "cosine", "norm", "relative error", "time", "memory", "gradients", "hvps", "mixed"]
    if several:
        header.insert(1, "level")
    title = f"Hypergradients of {found.get('upper', 'the top')} against the truth"
    cells = table(title, header, (_audit_row(row, several) for row in rows), numbers=True)
    failures = dict.fromkeys(str(row["failure"]) for row in rows if row.get("failure"))
    notes = element("div", *(element("p", failure) for failure in failures), class_="note")
    return section("Audit", element("ul", *verdict) if verdict else Html(), cells, notes)


def _audit_row(row: Mapping[str, Any], several: bool) -> list[object]:
    name = [row.get("label", "-"), *([row.get("level", "-")] if several else [])]
    cosine, norm, error, seconds, peak = (_number(row, key) for key in NUMBERS)
    counts = (row.get(key, "-") for key in ("gradients", "hessian_products", "mixed_products"))
    if seconds is None or peak is None:
        return [*name, *["-"] * 8]
    return [
        *name,
        "-" if cosine is None else f"{cosine:.4f}".replace("-", "\N{MINUS SIGN}"),
        "-" if norm is None else short(float(f"{norm:.3g}")),
        "-" if error is None else short(float(f"{error:.2g}")),
        spent(seconds),
        f"{peak / 2**20:.2f} MiB",
        *counts,
    ]


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _listed(found: Mapping[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    return value if isinstance(value, list) else []
