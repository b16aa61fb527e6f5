"""Whether compiling pays in the time that is left."""

from __future__ import annotations

SECONDS, SECONDS_PER_OPERATION = 2.0, 0.015
"""What compiling takes, and what it takes more for each operation; as measured on one core of a server."""


def too_late(operations: int, left: float) -> str | None:
    """Why compiling cannot pay any more, where it cannot.

    Args:
        operations: How many operations are to be compiled.
        left: How many seconds they will take until the end of the run, eagerly.
    """
    seconds = SECONDS + SECONDS_PER_OPERATION * operations
    if left > seconds:
        return None
    return f"its steps take {left:.2g} s more until train_iters, and compiling them about {seconds:.2g} s"
