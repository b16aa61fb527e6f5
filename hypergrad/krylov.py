"""What the Krylov solvers share: scaling, precision, damping, and the start from the last upper step's solution.

Warm starts: Dagreou et al. 2022 (arXiv 2201.13409); Arbel and Mairal 2022 (arXiv 2111.14580).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from math import isfinite

import torch

from .checks import at_least, non_negative
from .curvature import CurvatureMethod
from .errors import ConfigError, TracingError
from .linearization import Linearization
from .memory import recall
from .precision import Product, like, resolution, working, working_product
from .tensors import Tensors, add, dot, length, negative, norm, scale, zeros_like
from .tracing import is_tracing

TOLERANCE = 1e-12
"""Of the norm of the right-hand side: below what few iterations leave over."""


@dataclass(frozen=True)
class KrylovMethod(CurvatureMethod):
    """Solves (H + damping I) x = v from products with H. A subclass has the options below and writes :meth:`iterate`.

    Args:
        warm_start: Start each upper step from the last one's solution, scaled to fit. Costs one product, and saves
            several once the problem changes little from step to step. Solves that are differentiated again (nested
            levels) start from zero.
    """

    iterations: int = 1
    damping: float = field(default=0.0, kw_only=True)
    tolerance: float = field(default=TOLERANCE, kw_only=True)
    warm_start: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, "iterations", self.iterations, 1)
        non_negative(self.name, "damping", self.damping)
        non_negative(self.name, "tolerance", self.tolerance)
        if not isinstance(self.warm_start, bool):
            raise ConfigError(f"{self.name}: warm_start must be true or false, got {self.warm_start!r}")

    @abstractmethod
    def iterate(self, product: Product, right: Tensors, target: float) -> Tensors:
        """Solve A x = right from x = 0 until the residual norm is at most ``target``; ``right`` is left as it is.

        Returns:
            Tensors that nobody else holds, or ``right``.
        """

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return self._solve(at, vector, None)

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        if not self.warm_start or at.differentiable:
            return super().pull_back(at, cotangent)
        key = f"{self.name}.solution"
        with torch.no_grad():
            solution = self._solve(at, cotangent, recall(at.state, key, cotangent))
        at.state[key] = tuple(t.detach().clone() for t in solution)
        return negative(at.mixed_product(solution))

    def _solve(self, at: Linearization, vector: Tensors, start: Tensors | None) -> Tensors:
        if is_tracing() or self._runs_to_the_end(vector):
            return self._solve_unread(at, vector, working(vector), start)
        right, size = _normalised(working(vector))
        if size == 0.0:
            return zeros_like(vector)
        product = working_product(self.operator(at), vector, self.damping)
        # A residual below the resolution of its own dtype is noise, and so is the curvature along it.
        target = max(self.tolerance, resolution(right))
        if start is None:
            solution = self.iterate(product, right, target)
        else:
            solution = self._correct(product, right, working(start), target)
        torch._foreach_mul_(solution, size)
        return like(solution, vector)

    def _runs_to_the_end(self, vector: Tensors) -> bool:
        """Whether to look at no number on the way: on a device, where the tolerance is none that is met before."""
        unread = type(self).iterate_unread is not KrylovMethod.iterate_unread
        return unread and not vector[0].is_cpu and self.tolerance <= TOLERANCE

    def _solve_unread(self, at: Linearization, vector: Tensors, right: Tensors, start: Tensors | None) -> Tensors:
        """:meth:`_solve` where no number is read."""
        size = torch.stack(torch._foreach_norm(right, float("inf"))).amax()
        right = scale(right, 1 / torch.where(size == 0, torch.ones_like(size), size))
        remaining = norm(right)
        right = scale(right, 1 / torch.where(remaining == 0, torch.ones_like(remaining), remaining))
        product = working_product(self.operator(at), vector, self.damping)
        target = max(self.tolerance, resolution(right))
        if start is None:
            solution = self.iterate_unread(product, right, target)
        else:
            image = product(start := working(start))
            factor = dot(image, right) / dot(image, image)
            usable = factor.isfinite()
            factor = torch.where(usable, factor, 0.0)
            # Zero times what is not finite is not zero.
            start, image = (tuple(torch.where(usable, t, 0.0) for t in x) for x in (start, image))
            residual = add(right, image, -factor)
            solution = add(self.iterate_unread(product, residual, target), start, factor)
        return like(scale(solution, size * remaining), vector)

    def iterate_unread(self, product: Product, right: Tensors, target: float) -> Tensors:
        """:meth:`iterate` where no number is read: what would end it early leaves its result as it is instead.

        Raises:
            TracingError: The method has no such form.
        """
        raise TracingError(
            f"{self.name} looks at numbers to see how it goes on; cg, neumann, identity, darts and sama do without"
        )

    def _correct(self, product: Product, right: Tensors, start: Tensors, target: float) -> Tensors:
        """Solve for what ``start`` leaves over: the same iterates as those of a Krylov method begun there."""
        image = product(start)
        # The multiple of the start with the smallest residual, which is then never above that of zero.
        factor = (dot(image, right) / dot(image, image)).item()
        if not isfinite(factor):
            return self.iterate(product, right, target)
        residual = add(right, image, -factor)
        return add(self.iterate(product, residual, target), start, factor)


def _normalised(x: Tensors) -> tuple[Tensors, float]:
    """x / norm(x) and norm(x); copies, unless the norm is zero."""
    size, remaining = 1.0, length(x)
    smallest = torch.finfo(x[0].dtype).tiny ** 0.25
    if not smallest < remaining < 1 / smallest:  # its square may have lost digits
        size = torch.stack(torch._foreach_norm(x, float("inf"))).amax().item()
        if size == 0.0:
            return x, 0.0
        x = tuple(torch._foreach_div(x, size))
        remaining = length(x)
    return tuple(torch._foreach_div(x, remaining)), size * remaining
