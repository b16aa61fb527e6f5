"""Every Python block of the README and the documentation runs, and every link between pages leads somewhere."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forked import Forked, forking

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    # What takes long is torch, and a part of it that it imports late.
    with forking("import torch._dynamo, multilevel.engine.engine") as programs:
        yield programs


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, forked: Forked, tmp_path: Path) -> None:
    # One program a page: later blocks may use what earlier ones made.
    program = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    ended = forked.run(program, tmp_path)
    assert ended.code == 0, ended.errors


@pytest.mark.parametrize(
    ("program", "code", "errors"),
    [
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import forked", 1, "ModuleNotFoundError"),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('words')", 1, "words"),
        ("raise SystemExit", 0, ""),
        ("import os; os.abort()", -signal.SIGABRT, ""),
    ],
)
def test_a_block_ends_as_it_does_by_itself(
    program: str, code: int, errors: str, forked: Forked, tmp_path: Path
) -> None:
    ended = forked.run(program, tmp_path)
    assert ended.code == code
    assert errors in ended.errors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert target.startswith("http") or (page.parent / target).exists(), target
