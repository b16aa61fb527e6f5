"""Names by which problems read each other: what a name may be, and the message when it is not there."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any

from ..hypergrad.errors import ConfigError, choices

if TYPE_CHECKING:
    from .problem import Problem


def check_name(name: str, cls: type, attributes: dict[str, Any] | None = None, reader: str | None = None) -> None:
    """Refuse a problem name that could not be read as an attribute.

    Args:
        name: The name of a problem.
        cls: The class of the problem that will read it.
        attributes: The instance attributes of that problem.
        reader: Its name, where it is another problem.

    Raises:
        ConfigError: The name is no identifier, or an attribute of the reader would hide it.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(
            f"a problem's name must be a Python identifier, since others read it as self.<name>; got {name!r}"
        )
    if hasattr(cls, name) or name in (attributes or {}):
        by = f"of problem '{reader}' ({cls.__name__})" if reader else f"of {cls.__name__}"
        raise ConfigError(
            f"problem '{name}': an attribute {by} has that name already and would hide it; choose another name"
        )


def missing_attribute(problem: Problem, name: str) -> str:
    """What to say when ``problem.<name>`` is neither an attribute nor a neighbour."""
    own = vars(problem)  # nothing is there yet while a problem is unpickled, or before super().__init__()
    neighbours = [*own.get("_uppers", ()), *own.get("_lowers", ())]
    who = f"problem '{own.get('name')}' ({type(problem).__name__})"
    return (
        f"{who} has no attribute '{name}', and no edge joins it to a problem of that name"
        f"{choices(name, neighbours, 'neighbours')}"
    )
