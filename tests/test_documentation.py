"""Every Python block of the README and the documentation runs, and every link between pages leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forked import Forked, forking

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with forking() as programs:
        yield programs


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, forked: Forked, tmp_path: Path) -> None:
    # One program a page: later blocks may use what earlier ones made.
    program = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    ended = forked.run(program, tmp_path)
    assert ended.code == 0, ended.errors


@pytest.mark.parametrize("program", ["1 / 0", "import no_such_module", "raise SystemExit(3)"])
def test_a_block_that_fails_is_noticed(program: str, forked: Forked, tmp_path: Path) -> None:
    ended = forked.run(program, tmp_path)
    assert ended.code != 0
    assert "Error" in ended.errors or "SystemExit" in ended.errors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert target.startswith("http") or (page.parent / target).exists(), target
