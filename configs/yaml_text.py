"""Reading and writing YAML: no tags that build objects, no key twice, and the line of every value.

Plain scalars follow YAML 1.2, so ``1e-3`` is a number and ``on`` and ``no`` are texts (PyYAML's own rules are those of
YAML 1.1, where they are a text, true and false).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ..hypergrad.errors import ConfigError

SCALARS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
"""Tag, pattern and first characters of the plain scalars that are not texts, in order of precedence."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars above. It also refuses repeated keys and values that contain themselves."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own attribute, replaced for this class

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str | None] = []

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent) and anchor in self._open:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=f"'*{anchor}' contains itself", problem_mark=mark)
        self._open.append(anchor)
        node: Node | None = super().compose_node(parent, index)
        self._open.pop()
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that the loader above would not read as texts."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _integer(loader: _Loader, node: ScalarNode) -> int:
    return int(node.value)  # PyYAML's own would read 012 as ten


def _refuse_tag(loader: _Loader, node: Node) -> None:
    raise yaml.MarkedYAMLError(problem=f"the tag '{node.tag}' is not allowed", problem_mark=node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor(None, _refuse_tag)
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first])


def parse(text: str, name: str) -> tuple[Any, Node | None]:
    """Return the value of a YAML text, and the node tree that knows its lines.

    Args:
        text: The YAML.
        name: What errors call it.

    Raises:
        ConfigError: Not YAML, a tag, a key given twice, or a value that contains itself.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (loader.construct_document(node) if node is not None else None), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ConfigError(f"{where}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a character or a number that YAML does not allow
        raise ConfigError(f"{name}: {error}") from error


def lines_along(node: Node | None, path: Sequence[str | int]) -> list[int]:
    """The line, counted from 1, of each key along ``path``, as far as the keys are there."""
    lines: list[int] = []
    for part in path:
        if isinstance(node, MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        lines.append(found[0].start_mark.line + 1)
        node = found[1]
    return lines


def write(value: Any) -> str:
    """The YAML text of plain data, keys in their order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
