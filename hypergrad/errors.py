"""The exceptions and warnings that this library raises, and the wording help they share."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable


class MultilevelError(Exception):
    """Base of every error raised by this library on purpose."""


class ConfigError(MultilevelError, ValueError):
    """A setting, an argument or a YAML file is wrong; the message says where and what would be right."""


class GraphError(MultilevelError, ValueError):
    """The problems and their edges do not form a valid hierarchy."""


class ProblemError(MultilevelError, RuntimeError):
    """A problem's own code (its training step, its data) returned something that cannot be used."""


class NonFiniteError(MultilevelError, ArithmeticError):
    """A loss, a gradient or a hypergradient is infinite or not a number."""


class CheckpointError(MultilevelError, RuntimeError):
    """A checkpoint is damaged, foreign, or of another hierarchy."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read, or will not lead to exactly the same run; the run goes on."""


class LoggerWarning(UserWarning):
    """A logger could not write; the run goes on."""


class TracingError(Exception):
    """What runs cannot be recorded into a program; the message says why. It never leaves the library."""


class CompileWarning(UserWarning):
    """A level step was not compiled and runs eagerly: the numbers are the same, the time is not."""


class NumericsWarning(UserWarning):
    """A hypergradient was computed, but an assumption of its method does not hold."""


def choices(name: str, known: Iterable[str], label: str = "available") -> str:
    """Return ``"; did you mean 'x'? available: x, y"``, or only the list where no known name is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'? " if near else "; "
    return f"{hint}{label}: {', '.join(known) or 'none'}"


class second_derivatives:  # noqa: N801  used like a function; a generator would cost each pull back two microseconds
    """Take second derivatives of a loss, and say in words where torch has none.

    Args:
        whose: Who takes them, of what: ``"problem 'lower': cg"``.

    Raises:
        ProblemError: An operation in the loss has none.
    """

    __slots__ = ("_whose",)

    def __init__(self, whose: str) -> None:
        self._whose = whose

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, RuntimeError):
            return
        found = re.search(r"derivative for '?([\w:]+)'? is not implemented", str(error))
        if found is not None:
            raise ProblemError(
                f"{self._whose} differentiates its gradient once more, and torch has no derivative of {found[1]}. "
                f"Finite differences (darts, sama) need none{_unfused(found[1])}"
            ) from error


def _unfused(operation: str) -> str:
    if "attention" not in operation:
        return ""
    return "; and attention has one within torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)"


_warned: set[str] = set()


def warn_once(key: str, message: str, category: type[Warning] = NumericsWarning) -> None:
    """Warn the first time ``key`` comes up in this process: a solver runs thousands of times a minute."""
    if key not in _warned:
        _warned.add(key)
        warnings.warn(message, category, stacklevel=3)


def forget_warnings() -> None:
    """Let every :func:`warn_once` warn again (each test starts from here)."""
    _warned.clear()
