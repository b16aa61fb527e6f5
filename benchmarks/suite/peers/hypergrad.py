"""hypergrad (the package on the index, not this library's folder of that name): functions that give a hypergradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypergrad.approx_hypergrad import conjugate_gradient, neumann
from torch import Tensor

from multilevel import CG, Method, Neumann

from ..bilevel import Bilevel
from ..case import UnavailableError
from .loop import Functions, GivenGradient, Parameters


def bilevel_run(problem: Bilevel, method: Method) -> GivenGradient:
    """Two levels."""
    if isinstance(method, CG):
        function = partial(conjugate_gradient, num_iters=method.iterations, lr=1.0)
    elif isinstance(method, Neumann):
        function = partial(neumann, num_iters=method.iterations, lr=method.alpha)
    else:
        raise UnavailableError(f"has no {method.name}")
    functions = Functions(problem)
    return GivenGradient(problem, functions, partial(_gradient, functions, function))


def _gradient(functions: Functions, function: Callable[..., Any], below: Any, above: Any) -> tuple[Tensor, ...]:
    def lower_loss(lower: Parameters, upper: Parameters) -> Tensor:
        return functions.lower(lower, upper, below)

    def upper_loss(lower: Parameters, upper: Parameters) -> Tensor:
        return functions.upper(lower, above)

    lower, upper = (tuple(m.parameters()) for m in (functions.lower_module, functions.upper_module))
    return function(lower_loss, upper_loss, lower, upper)
