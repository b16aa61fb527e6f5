"""What `from multilevel import ...` offers."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import multilevel

ROOT = Path(multilevel.__file__).parent
CONTRACT = ["Config", "Engine", "EngineConfig", "Problem", "best_response", "register"]


def typed() -> dict[str, str]:
    """The names re-exported for type checkers, with their modules."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: type checkers take `X as X` for a re-export"
            found[alias.name] = node.module or ""
    return found


@pytest.mark.parametrize("name", multilevel.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(multilevel, name)
    assert name in dir(multilevel)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert getattr(multilevel, name) is value


def test_names_for_type_checkers_are_those_that_are_loaded() -> None:
    assert typed() == multilevel._HOME
    assert list(multilevel._HOME) == [n for n in multilevel.__all__ if n != "__version__"]


@pytest.mark.parametrize(("name", "home"), multilevel._HOME.items())
def test_a_name_is_that_of_its_module(name: str, home: str) -> None:
    assert getattr(multilevel, name) is getattr(import_module(f"multilevel.{home}"), name)


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract(name: str) -> None:
    assert name in multilevel.__all__


def test_every_method_is_public() -> None:
    from multilevel.hypergrad.registry import available

    for name, cls in available().items():
        if cls.__module__.startswith("multilevel."):
            assert cls.__name__ in multilevel.__all__, name
            assert getattr(multilevel, cls.__name__) is cls


@pytest.mark.parametrize("name", ["darts", "neumann", "cg"])
def test_methods_are_functions_of_their_modules(name: str) -> None:
    function = getattr(import_module(f"multilevel.hypergrad.{name}"), name)
    assert list(inspect.signature(function).parameters) == ["vector", "curr", "prev", "sync"]
    assert inspect.signature(function).parameters["sync"].default is False


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'multilevel' has no attribute 'Engin'"):
        multilevel.Engin  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()
    assert "py.typed" in (ROOT / "setup.cfg").read_text()


def test_version() -> None:
    assert multilevel.__version__.split(".")[0].isdigit()
