"""From a component of an experiment file to the object it describes, with every refusal naming its key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..configs.schema import Component
from ..configs.validation import Path, refuse, under
from ..hypergrad.errors import GraphError, MultilevelError, choices
from .imports import OURS, Importer, within


@dataclass(frozen=True)
class Kind:
    """What a component must be.

    Args:
        article: For the error message: "an optimizer".
        bases: The class, or a function's result, must be one of these; anything will do where it is empty.
    """

    article: str
    bases: tuple[type, ...] = ()


MODULE = Kind("a torch.nn.Module", (nn.Module,))
OPTIMIZER = Kind("a torch.optim.Optimizer", (Optimizer,))
SCHEDULER = Kind("a scheduler of torch.optim.lr_scheduler", (LRScheduler, ReduceLROnPlateau))
ANYTHING = Kind("a class or function that data may come from")

A_TEXT = re.compile(r"\bstr(ing)?\b")
UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")

PARTS_FROM = "multilevel.problems"
"""From this library, a file may call what is defined in here; elsewhere only classes of the kind it must name."""


@dataclass(frozen=True)
class Constructor:
    """Builds components.

    Args:
        importer: What finds their classes.
    """

    importer: Importer

    def build(self, component: Component, kind: Kind, *given: Any) -> Any:
        """Construct a component.

        Args:
            component: Its class and arguments; components among the arguments are constructed first.
            kind: What it must be.
            given: Positional arguments that go in front: the parameters of an optimizer.

        Raises:
            ConfigError: The name may not be imported or is not of this kind, an argument is unknown or missing, or the
                constructor itself raised.
        """
        target = self.find(component.class_, kind)
        args = [*given, *(self.resolve(value, "args", i) for i, value in enumerate(component.args))]
        built = self.call(component.class_, target, args, self.resolve_all(component.kwargs))
        if not isinstance(built, kind.bases or object) or built is None:
            raise refuse(f"'{component.class_}' returned {type(built).__name__}; expected {kind.article}", "class")
        return built

    def find(self, name: str, kind: Kind) -> Callable[..., Any]:
        """The class or function of that name; a class must be of this kind."""
        with under("class"):
            found = self.importer.find(name)
        if inspect.isclass(found) and kind.bases:
            if not issubclass(found, kind.bases):
                raise refuse(f"'{name}' is not {kind.article}", "class")
        elif within(str(found.__module__), OURS) and not within(str(found.__module__), PARTS_FROM):
            raise refuse(
                f"'{name}' may not be called from a file; from multilevel, only what {PARTS_FROM} has", "class"
            )
        return found

    def resolve_all(self, values: Mapping[str, Any], *path: str) -> dict[str, Any]:
        """Construct the components among keyword arguments."""
        return {key: self.resolve(value, *path, key) for key, value in values.items()}

    def resolve(self, value: Any, *path: str | int) -> Any:
        """Construct a component, or those inside a list or a mapping; anything else is returned as it is."""
        if isinstance(value, list):
            return [self.resolve(item, *path, i) for i, item in enumerate(value)]
        if isinstance(value, dict) and "class" in value:
            with under(*path):
                return self.build(Component(**value), ANYTHING)
        if isinstance(value, dict):
            return {key: self.resolve(item, *path, key) for key, item in value.items()}
        return value

    def call(
        self,
        name: str,
        target: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a class or function whose arguments come from a file.

        Args:
            name: What the file calls it.
            target: The class or function.
            args: Positional arguments.
            kwargs: Keyword arguments.
            options: Keyword arguments that have the key ``options`` above them in the file.

        Raises:
            ConfigError: An argument is unknown or missing, or the call raised.
        """
        given = {**kwargs, **(options or {})}
        paths: dict[str, Path] = {key: ("options", key) if key in (options or ()) else (key,) for key in given}
        _check_arguments(name, target, args, paths)
        try:
            return target(*args, **given)
        except GraphError:
            raise
        except MultilevelError as error:
            raise refuse(str(error)) from error
        except Exception as error:  # whatever the class's own code raises on these arguments
            unknown = UNEXPECTED.search(str(error))
            if isinstance(error, TypeError) and unknown and unknown[1] in given:
                # A **kwargs was passed on to where nobody takes it.
                raise _unknown_argument(name, paths[unknown[1]], _all_parameters(target)) from error
            texts = _suspects(target, error, given)
            at = paths[texts[0]] if len(texts) == 1 else ()
            said = "".join(f"; {key} is the text {given[key]!r}" for key in texts)
            raise refuse(f"{name} raised {type(error).__name__}: {error}{said}", *at) from error


def _check_arguments(name: str, target: Callable[..., Any], args: Sequence[Any], paths: Mapping[str, Path]) -> None:
    parameters = _parameters(target)
    if parameters is None:
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    left = positional[len(args) :] + [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    names = [p.name for p in left if p.kind is not p.POSITIONAL_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key, path in paths.items():
            if key not in names:
                raise _unknown_argument(name, path, names)
    missing = [p.name for p in left if p.default is p.empty and p.name not in paths]
    if missing:
        raise refuse(f"{name} needs {', '.join(missing)}; it takes {', '.join(names)}")
    if len(args) > len(positional) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise refuse(f"{name} takes at most {len(positional)} positional arguments, got {len(args)}")


def _suspects(target: Callable[..., Any], error: Exception, given: Mapping[str, Any]) -> list[str]:
    """The texts among the arguments, where the error is that something is one: those whose default is none."""
    if not isinstance(error, TypeError) or not A_TEXT.search(str(error)):
        return []
    texts = {p.name for p in _parameters(target) or () if isinstance(p.default, str)}
    return [key for key, value in given.items() if isinstance(value, str) and key not in texts]


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):  # written in C without a signature
        return None


def _all_parameters(target: Callable[..., Any]) -> list[str]:
    """The keyword arguments of a function, or of a class and of all that it inherits from."""
    owners: Sequence[Any] = target.__mro__[:-1] if isinstance(target, type) else (target,)
    found = [p for owner in owners for p in _parameters(owner) or ()]
    return sorted({p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)})


def _unknown_argument(name: str, path: Path, known: Sequence[str]) -> Exception:
    return refuse(f"{name} takes no argument '{path[-1]}'{choices(str(path[-1]), known, 'arguments')}", *path)
