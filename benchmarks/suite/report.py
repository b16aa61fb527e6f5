"""The page: tables of every machine's results between two markers, the text around them written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .case import COMPILED, HAND, OURS
from .peers import PEERS
from .picture import draw
from .results import Measured, Results, RowResult, read

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURE = DOCS / "benchmarks.md", DOCS / "pictures" / "benchmarks.png"
BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- end of what was measured -->"
NOTHING = "Nothing has been measured with this version yet; `make bench` does it."
IMPLEMENTATIONS = (HAND, OURS, COMPILED, *PEERS)

Table: TypeAlias = list[list[str]]


def write(folder: Path, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Put the results that lie in a folder on the page, and draw them."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    if found:
        draw(found, picture)
    page.write_text(replaced(page.read_text(), block(found)))


def replaced(text: str, new: str) -> str:
    """The text with other words between the markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def block(found: Sequence[Results]) -> str:
    """What belongs between the markers."""
    if not found:
        return NOTHING
    parts = ["![ratio to the hand-written loop, by row and implementation](pictures/benchmarks.png)"]
    for results in found:
        parts += [f"## {results.machine['device']}", _facts(results), *_sections(results)]
    return "\n\n".join(parts)


def _sections(results: Results) -> Iterator[str]:
    yield (
        "### Time\n\nMilliseconds of a step of the top problem by hand; for the others the ratio to that, "
        f"median and quartiles of {results.rounds} rounds."
    )
    yield markdown(_by_implementation(results, _time))
    yield "\n".join(f"- {line}" for line in _reasons(results.rows))
    compiled = _compilation(results.rows)
    if compiled:
        yield "### Compilation\n\nSeconds to build it and take its first six steps."
        yield markdown(compiled)
    yield "### Memory\n\nMiB of tensors at the peak, beyond the parameters and data of the hand-written loop."
    yield markdown(_by_implementation(results, _memory))
    yield (
        "### Work and accuracy\n\nBackward passes of one step of the top problem and the steps below it: "
        "gradients / gradients that can be differentiated again / products with a vector."
    )
    yield markdown(_work(results.rows))
    if results.imports:
        yield "### Imports\n\nSeconds of a fresh process, median."
        yield markdown([["program", "seconds"], *([f"`{name}`", f"{s:.2f}"] for name, s in results.imports.items())])


def _facts(results: Results) -> str:
    facts = dict(results.machine)
    facts.pop("device")
    peers = facts.pop("peers")
    named = [f"{name} {value}" if name != "processor" else value for name, value in facts.items()]
    return "; ".join([*named, *(f"{name} {version}" for name, version in peers.items())]) + "."


def _by_implementation(results: Results, cell: Callable[[str, Measured], str]) -> Table:
    """One column for each that was timed anywhere."""
    shown = [name for name in IMPLEMENTATIONS if any(_timed(row, name) for row in results.rows)]
    rows = [
        [f"{row.workload} {row.method}", *(cell(name, row.runs[name]) if name in row.runs else "" for name in shown)]
        for row in results.rows
    ]
    return [["", *shown], *rows]


def _timed(row: RowResult, name: str) -> bool:
    return name in row.runs and row.runs[name].status == "timed"


def _time(name: str, run: Measured) -> str:
    if run.status != "timed":
        return {"skipped": "-", "differs": "differs", "failed": "fails"}[run.status]
    if name == HAND:
        return f"{run.milliseconds:.3g} ms"
    low, high = run.quartiles or (float("nan"),) * 2
    text = f"{run.ratio:.2f} ({low:.2f}-{high:.2f})"
    return f"**{text}**" if name in (OURS, COMPILED) else text


def _memory(name: str, run: Measured) -> str:
    return "" if run.peak_bytes is None else f"{run.peak_bytes / 2**20:.3g}"


def _compilation(rows: Sequence[RowResult]) -> Table:
    shown = [name for name in (COMPILED, "jaxopt") if any(_timed(row, name) for row in rows)]
    timed = [row for row in rows if any(_timed(row, name) for name in shown)]
    cells = ([_first_seconds(row, name) for name in (OURS, *shown)] for row in timed)
    table = [[f"{row.workload} {row.method}", *line] for row, line in zip(timed, cells, strict=True)]
    return [["", OURS, *shown], *table] if table else []


def _first_seconds(row: RowResult, name: str) -> str:
    seconds = row.runs[name].first_seconds if name in row.runs else None
    return "" if seconds is None else f"{seconds:.2g}"


def _work(rows: Sequence[RowResult]) -> Table:
    head = ["", HAND, OURS, "hypergradient error", "distance, float32", "distance, float64"]
    return [head, *([f"{row.workload} {row.method}", *_work_cells(row)] for row in rows)]


def _work_cells(row: RowResult) -> Iterator[str]:
    for name in (HAND, OURS):
        yield str(row.runs[name].passes or "")
    for value in (row.error, row.runs[OURS].distance, row.runs[OURS].distance_float64):
        yield "" if value is None else f"{value:.1e}" if value >= 1e-12 else "< 1e-12"


def _reasons(rows: Sequence[RowResult]) -> Iterator[str]:
    """Why what was not timed was not, each reason once for each implementation."""
    for name in IMPLEMENTATIONS:
        by_reason: dict[str, list[str]] = {}
        for row in rows:
            run = row.runs.get(name)
            if run is not None and run.reason is not None:
                by_reason.setdefault(run.reason, []).append(f"{row.workload} {row.method}")
        if by_reason:
            yield f"`{name}`: " + "; ".join(f"{reason} ({_listed(where)})" for reason, where in by_reason.items())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} rows"


def markdown(table: Iterable[Sequence[Any]]) -> str:
    """A table as Markdown writes it."""
    head, *rows = [[str(cell) for cell in row] for row in table]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
