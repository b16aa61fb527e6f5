"""Why something could not be recorded or compiled, in a line for the person who asked for it."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from ...hypergrad.errors import TracingError

NOT_TO_BLAME = (Path(torch.__file__).parent, Path(__file__).parent, Path(traceback.__file__).parent)
"""Where code runs that is only in between."""
DATA_DEPENDENT = ("DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode")


def reason_of(error: BaseException) -> TracingError:
    """What went wrong, as the end of "it runs eagerly: ..."."""
    for cause in chain(error):
        if isinstance(cause, TracingError):
            return cause
    kind = type(error).__name__
    if any(type(cause).__name__ in DATA_DEPENDENT for cause in chain(error)):
        return TracingError(
            f"{_where(error)}numbers are read out of tensors (.item(), float(), an if, a shape that depends on values)"
        )
    if "InvalidCxxCompiler" in str(error):
        return TracingError("there is no C++ compiler here; install g++, or name one in the environment variable CXX")
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), kind)
    explained = next((line.strip() for line in str(error).splitlines() if "Explanation:" in line), "")
    return TracingError(f"{_where(error)}{explained.removeprefix('Explanation: ') or f'{kind}: {first}'}")


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and those behind it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return found


def _where(error: BaseException) -> str:
    """The line it happened at, the last that is not torch's; in code that torch only followed, what it says."""
    followed = next((stack for cause in chain(error) if (stack := getattr(cause, "real_stack", None))), None)
    frames = [*traceback.extract_tb(error.__traceback__), *(followed or ())]
    own = [frame for frame in frames if not set(NOT_TO_BLAME) & set(Path(frame.filename).parents)]
    own = [frame for frame in own if "<" not in frame.filename]
    return f"at {Path(own[-1].filename).name}:{own[-1].lineno}, " if own else ""
