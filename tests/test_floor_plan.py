"""Imports point one way, and the command line answers without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import multilevel

ROOT = Path(multilevel.__file__).parent
LAYERS = ("hypergrad", "configs", "problems", "engine")
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
TOP = [ROOT / "__init__.py", ROOT / "__main__.py"]


def imported(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Absolute names of the modules that a file imports; ``at_import`` leaves out those inside functions and
    ``if TYPE_CHECKING``."""
    package = ("multilevel", *path.relative_to(ROOT).parent.parts)
    for node in _nodes(ast.parse(path.read_text()), at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import and (inside or typing_only):
            continue
        yield node
        yield from _nodes(node, at_import)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = LAYERS.index(path.relative_to(ROOT).parts[0])
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "multilevel" and len(parts) > 1 and parts[1] in LAYERS:
            assert LAYERS.index(parts[1]) <= own, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_relative_and_from_the_library_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            assert node.module.split(".")[0] not in ("multilevel", "tests", "benchmarks", "examples")


def test_methods_know_neither_problems_nor_processes() -> None:
    for path in sorted((ROOT / "hypergrad").rglob("*.py")):
        assert not any("distributed" in name for name in imported(path)), path.name


@pytest.mark.parametrize(
    "path", [*TOP, ROOT / "engine" / "cli.py", ROOT / "engine" / "__init__.py"], ids=lambda p: p.name
)
def test_no_torch_where_the_command_line_starts(path: Path) -> None:
    names = set(imported(path, at_import=True))
    assert not {
        name for name in names if name.split(".")[0] in ("torch", "networkx", "pydantic", "numpy", "matplotlib")
    }


def test_help_imports_no_torch() -> None:
    code = "import sys, multilevel, multilevel.engine.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_package_is_in_the_wheel() -> None:
    """``packages`` is a list, so that tests stay out; a folder that is forgotten there is missing after installing."""
    setup = (ROOT / "setup.cfg").read_text()
    listed = {
        line.strip() for line in setup.split("packages =")[1].split("install_requires")[0].splitlines() if line.strip()
    }
    found = {
        ".".join(("multilevel", *path.parent.relative_to(ROOT).parts))
        for layer in LAYERS
        for path in (ROOT / layer).rglob("__init__.py")
    }
    assert listed == found | {"multilevel"}
