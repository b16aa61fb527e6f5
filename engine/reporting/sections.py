"""The parts of the page of a run, each from what its folder has; what it does not have is said, or left out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import datetime

from ..runs.folder import RunFolder
from .markup import Html, element, section, text
from .records import RunRecord
from .wording import counted, short, spent

HEAVY = 2_000_000
"""Bytes from which a picture of the run is not taken into the page."""


def head(run: RunRecord) -> Html:
    """What was run, when, and how it stands."""
    experiment = run.loaded.experiment if run.loaded else None
    status = "finished" if run.finished else "failed" if run.error is not None else "unfinished"
    parts = [element("h1", run.name), element("span", status, class_=f"badge {status}")]
    if experiment and experiment.description:
        parts.append(element("p", experiment.description, class_="lead"))
    facts = [element("div", element("dt", name), element("dd", value)) for name, value in _facts(run)]
    return element("header", *parts, element("dl", *facts, class_="facts"))


def _facts(run: RunRecord) -> Iterator[tuple[str, str]]:
    engine = run.loaded.experiment.engine if run.loaded else None
    of = f" of {counted(engine.train_iters)}" if engine and engine.train_iters != run.steps else ""
    yield "engine steps", f"{counted(run.steps)}{of}"
    if run.seconds:
        yield "time", spent(run.seconds)
    if engine and engine.seed is not None:
        yield "seed", str(engine.seed)
    if engine and engine.device != "auto":
        yield "device", engine.device
    if run.began is not None:
        yield "started", f"{datetime.fromtimestamp(run.began):%d %b %Y, %H:%M}"
    yield "folder", "/".join(run.path.resolve().parts[-2:])


def result(run: RunRecord) -> Html:
    """The final metrics; where there are none, why, and the last that validations found."""
    if run.report:
        return section("Result", _tiles(run.report))
    parts = [element("p", _unfinished(run))]
    if run.checkpoints and not run.finished:
        command = element("code", f"multilevel resume {run.path}")
        parts.append(element("p", "It can go on from its last checkpoint: ", command))
    last = {name: values[max(values)] for name, values in run.validation.items()}
    if last:
        parts += [element("p", "The last validation found:"), _tiles(last)]
    return section("Result", *parts)


def _unfinished(run: RunRecord) -> str:
    if run.finished:
        return "The engine of the run reports no final metrics."
    return f"There are no final metrics: the run has not come to its end. It last wrote at step {counted(run.steps)}."


def _tiles(metrics: Mapping[str, float]) -> Html:
    tiles = [element("div", element("dt", name), element("dd", short(value))) for name, value in metrics.items()]
    return element("dl", *tiles, class_="tiles")


def error(run: RunRecord) -> Html:
    """The traceback of a run that failed."""
    if run.error is None:
        return Html()
    message = element("p", RunFolder(run.path).error, class_="message")
    details = element("details", element("summary", "traceback"), element("pre", run.error, tabindex=0))
    return section("Error", message, details, class_="trouble")


def pictures(run: RunRecord) -> Html:
    """What the engine of the run drew itself."""
    found = []
    for path in run.pictures:
        if path.stat().st_size <= HEAVY:
            data = base64.b64encode(path.read_bytes()).decode()
            name = path.stem.replace("_", " ").replace("-", " ")
            image = Html(f'<img src="data:image/png;base64,{data}" alt="{text(name)}">')
            found.append(element("figure", image, element("figcaption", path.name)))
    return (
        section("Pictures", element("p", "Drawn by the engine of the run.", class_="note"), *found) if found else Html()
    )


def settings(run: RunRecord) -> Html:
    """The settings, every default written out."""
    if run.config is None:
        return section("Settings", element("p", "There is no config.yaml.", class_="note"))
    lines = len(run.config.splitlines())
    summary = element("summary", f"config.yaml, {counted(lines, 'line')}")
    return section("Settings", element("details", summary, element("pre", run.config, tabindex=0)))


def remarks(run: RunRecord) -> Html:
    """What could not be read."""
    if not run.remarks:
        return Html()
    return section("Remarks", element("ul", *(element("li", remark) for remark in run.remarks)))
