"""Run folders written by hand: what the engine would leave there, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONFIG = """
name: {name}
description: {description}
engine: {{train_iters: {steps}, seed: 3, valid_step: 10}}
problems:
  reweight:
    class: somewhere.Reweight
    optimizer: {{class: torch.optim.Adam, lr: 0.003}}
  classifier:
    class: somewhere.Classifier
    optimizer: {{class: torch.optim.SGD, lr: 0.02}}
    config: {{type: {{name: cg, iterations: 7}}, unroll_steps: 5}}
edges:
  - [reweight, classifier]
"""
TIMING = {
    "classifier": {"steps": 40, "data": 0.5, "forward": 1.0, "backward": 1.5, "sweep": 0.0, "update": 1.0},
    "reweight": {"steps": 8, "data": 0.25, "forward": 0.25, "backward": 0.25, "sweep": 3.0, "update": 0.25},
}
AUDIT = {
    "upper": "reweight",
    "rows": [
        {
            "label": "as configured", "method": "cg", "level": "all", "cosine": 0.95, "norm_ratio": 0.3,
            "relative_error": 0.73, "seconds": 0.0015, "peak_bytes": 2**20, "gradients": 1, "hessian_products": 7,
            "mixed_products": 1, "failure": None,
        },
        {"label": "unroll", "method": "unroll", "level": "all", "cosine": None, "failure": "unroll: nothing recorded"},
    ],
    "verdict": ["The run's hypergradient is biased but points the right way."],
}  # fmt: skip

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fcffff3f030005fe02fea735816d"
    "0000000049454e44ae426082"
)
EVIL = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\"'&amp;"
"""What would run if it were markup."""


def of_problem(name: str, step: int, **metrics: Any) -> dict[str, Any]:
    """A line of ``metrics.jsonl``."""
    return {"step": step, "seconds": step / 10, "problem": name, "count": step, "metrics": metrics}


def of_validation(step: int, **metrics: Any) -> dict[str, Any]:
    """Another."""
    return {"step": step, "seconds": step / 10, "validation": metrics}


def usual(steps: int = 40, scale: float = 1.0) -> list[dict[str, Any]]:
    """The lines of an ordinary run."""
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        lines.append(of_problem("classifier", step, loss=scale * 10.0 ** (-step / 10), accuracy=1 - 1 / step))
        lines += [of_problem("reweight", step, loss=scale / step)] if step % 5 == 0 else []
        lines += [of_validation(step, **{"test accuracy": 1 - 0.5 / step})] if step % 10 == 0 else []
    return lines


def write_run(
    path: Path,
    lines: Iterable[Mapping[str, Any]] | None = None,
    *,
    config: str | None = CONFIG,
    name: str = "demo",
    description: str = "A demo",
    steps: int = 40,
    **files: Any,
) -> Path:
    """Write the folder of a run.

    Args:
        path: The folder.
        lines: Of ``metrics.jsonl``.
        config: Of ``config.yaml``, with places for what follows; ``None`` leaves it out.
        name: The experiment's.
        description: The experiment's.
        steps: The steps asked for.
        files: Contents of ``report.json`` and so on, by the name before the dot; ``error`` is a text.
    """
    path.mkdir(parents=True, exist_ok=True)
    if config is not None:
        text = config.format(name=json.dumps(name), description=json.dumps(description), steps=steps)
        (path / "config.yaml").write_text(text, encoding="utf-8")
    records = usual(steps) if lines is None else lines
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")
    for stem, content in files.items():
        ending = "txt" if stem == "error" else "json"
        (path / f"{stem}.{ending}").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_whole_run(path: Path, lines: Iterable[Mapping[str, Any]] | None = None, **changes: Any) -> Path:
    """Write the folder of a finished run from which nothing is missing."""
    files = {"report": {"test accuracy": 0.9875}, "timing": {"problems": TIMING}, "audit": AUDIT, **changes}
    return write_run(path, lines, **files)
