"""From what the user wrote (problems or names, two dictionaries or a list of pairs) to a graph, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..hypergrad.errors import ConfigError, GraphError, choices
from ..problems.level import ProblemLevel
from ..problems.problem import Problem
from .graph import Edge, Graph, as_edges

Name: TypeAlias = "Problem | str"
Dependencies: TypeAlias = Mapping[str, Mapping[Name, Iterable[Name]]]


def by_name(problems: Iterable[Problem]) -> dict[str, Problem]:
    """Problems by name.

    Raises:
        GraphError: There is none, one is no :class:`Problem`, or two have one name.
    """
    if isinstance(problems, Problem):
        raise GraphError(f"Engine: expected a list of problems, got the problem '{problems.name}'; put it into a list")
    found: dict[str, Problem] = {}
    for problem in problems:
        if not isinstance(problem, Problem):
            raise GraphError(f"Engine: expected Problem objects, got {type(problem).__name__}")
        if problem.name in found:
            raise GraphError(f"two problems are named '{problem.name}'; give each its own name")
        found[problem.name] = problem
    if not found:
        raise GraphError("Engine: at least one problem is needed, got none")
    return found


def refuse_shared(levels: Mapping[str, ProblemLevel]) -> None:
    """Refuse a parameter that is at two levels.

    Raises:
        ConfigError: Two problems train one tensor.
    """
    owners: dict[int, str] = {}
    for name, level in levels.items():
        for p in level.parameters:
            if (owner := owners.setdefault(id(p), name)) != name:
                raise ConfigError(
                    f"problems '{owner}' and '{name}' train the same parameter, of shape {tuple(p.shape)}; each "
                    "belongs to one problem. Leave it out of one optimizer, give one of them a copy (copy.deepcopy), "
                    "or make one problem of both, with the sum of their losses"
                )


def declared_graph(
    problems: Mapping[str, Problem], dependencies: Dependencies | None, edges: Sequence[tuple[Name, Name]] | None
) -> Graph:
    """The graph of ``dependencies={"u2l": {upper: [lowers]}, "l2u": {lower: [uppers]}}`` or ``edges=[(upper, lower)]``.

    Raises:
        GraphError: Both or neither are given, a key or a name is unknown, or the graph is no hierarchy.
    """
    if dependencies is not None and edges is not None:
        raise GraphError("Engine: give either dependencies or edges, not both")
    if edges is not None:
        pairs = [_pair(edge, problems) for edge in edges]
        return Graph(problems, upper_to_lower=pairs, lower_to_upper=pairs)
    if dependencies is None and len(problems) > 1:
        raise GraphError(
            f"Engine: {len(problems)} problems and no edges between them; pass edges=[(upper, lower), ...]"
        )
    if not isinstance(dependencies or {}, Mapping):
        raise GraphError(
            f"dependencies must be a mapping with the keys 'u2l' and 'l2u', got {type(dependencies).__name__}; "
            "for a list of pairs (upper, lower) write edges=[...]"
        )
    kinds = dict(dependencies or {})
    unknown = set(kinds) - {"u2l", "l2u"}
    if unknown:
        key = str(sorted(map(str, unknown))[0])
        raise GraphError(f"dependencies: unknown key '{key}'{choices(key, ('u2l', 'l2u'), 'keys')}")
    named = {kind: _named(kind, kinds.get(kind) or {}, problems) for kind in ("u2l", "l2u")}
    return Graph(
        problems,
        upper_to_lower=as_edges(named["u2l"], upper_first=True),
        lower_to_upper=as_edges(named["l2u"], upper_first=False),
    )


def _named(kind: str, mapping: Any, problems: Mapping[str, Problem]) -> dict[str, list[str]]:
    if not isinstance(mapping, Mapping):
        shape = "{upper: [lowers]}" if kind == "u2l" else "{lower: [uppers]}"
        raise GraphError(f"dependencies['{kind}'] must be a mapping {shape}, got {type(mapping).__name__}")
    named: dict[str, list[str]] = {}
    for key, several in mapping.items():
        if isinstance(several, (str, Problem)):
            several = [several]
        if not isinstance(several, Iterable):
            raise GraphError(f"dependencies['{kind}']: expected a list of problems or names, got {several!r}")
        named.setdefault(_name(key, problems), []).extend(_name(other, problems) for other in several)
    return named


def _pair(edge: Any, problems: Mapping[str, Problem]) -> Edge:
    if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
        raise GraphError(f"edges: each must be a pair (upper, lower), got {edge!r}")
    upper, lower = edge
    return _name(upper, problems), _name(lower, problems)


def _name(reference: Any, problems: Mapping[str, Problem]) -> str:
    name = reference.name if isinstance(reference, Problem) else str(reference)
    if name not in problems:
        missing = (
            "is on an edge but was not passed to Engine([...])" if isinstance(reference, Problem) else "is unknown"
        )
        raise GraphError(f"problem '{name}' {missing}{choices(name, problems, 'problems')}")
    if isinstance(reference, Problem) and problems[name] is not reference:
        raise GraphError(f"problem '{name}' on an edge is another object than the one passed to Engine([...])")
    return name
