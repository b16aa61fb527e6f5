"""Training steps that give another loss when they are evaluated again, which is then what a method differentiates."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..hypergrad.errors import NumericsWarning, ProblemError
from ..hypergrad.grad_mode import grad_mode
from ..problems.level import ProblemLevel


class Repeatability:
    """Evaluates the first loss of each problem once more, as its method will: same batch, parameters, random numbers.

    Args:
        names: The problems whose loss is evaluated again for others.
        levels: The problems' levels by name.
    """

    def __init__(self, names: Iterable[str], levels: Mapping[str, ProblemLevel]) -> None:
        self._levels = levels
        self._unseen = set(names)

    def look(self, name: str, loss: Tensor) -> None:
        """Warn of a problem's loss, when it is the first of them and comes out differently.

        Raises:
            ProblemError: It cannot be evaluated again.
        """
        if name not in self._unseen:
            return
        self._unseen.remove(name)
        level = self._levels[name]
        if not self._tells(level):
            return
        try:
            first, again = float(loss.detach()), _again(level)
        except ProblemError:  # the derivative will say so, where there is one
            return
        except RuntimeError as error:
            if not level.method.differences or "does not require grad" not in str(error):
                raise
            raise ProblemError(
                f"problem '{name}': {level.method.name} evaluates training_step where parameters require no gradient, "
                f"and it fails there: {error}. Use a method that differentiates the loss once more, such as identity "
                "or cg"
            ) from error
        allowed = max(abs(first), abs(again)) * torch.finfo(loss.dtype).eps ** 0.5
        if not abs(first - again) <= allowed and torch.isfinite(loss):
            warnings.warn(
                f"problem '{name}': training_step gives {first:.6g} and, evaluated again on the same batch, parameters "
                f"and random numbers, {again:.6g}; {level.method.name} differentiates the second. Draw from torch's, "
                "numpy's or Python's own generators (others are not replayed), keep what changes from call to call out "
                "of the loss, and do not choose parameters by requires_grad",
                NumericsWarning,
                stacklevel=2,
            )

    def _tells(self, level: ProblemLevel) -> bool:
        """Whether the two should be one number.

        A method that goes back through the steps finds out itself where they lead. Where losses are scaled, the second
        is evaluated in full precision.
        """
        return not level.method.needs_tape and level.update.scaler is None


def _again(level: ProblemLevel) -> float:
    # A finite difference evaluates it where nothing requires a gradient. Copies, for it may write to them.
    records = not level.method.differences
    point = tuple(p.detach().clone().requires_grad_(records) for p in level.parameters)
    try:
        with grad_mode(False):  # its graph would double the memory of the first step
            return float(level.evaluate({level.name: point}).loss)
    except ProblemError:
        raise
    except RuntimeError:  # it takes derivatives of its own
        with grad_mode(True):
            return float(level.evaluate({level.name: point}).loss.detach())
