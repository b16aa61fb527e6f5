"""Graphs of tensor operations become compiled functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ...hypergrad.errors import TracingError
from .products import for_host
from .reasons import reason_of

Function: TypeAlias = Callable[..., Sequence[Tensor]]
FOR_HOST = {"pattern_matcher": False, "layout_optimization": False}
"""Settings of the compiler: no passes over the graph that look for patterns. One puts sums into products again, and
without all of them nothing that was measured takes longer. And no layouts of its own for convolutions: with torch 2.13
the vectors that it reads across them computed wrong gradients (an instance normalization behind a convolution)."""


def compiled(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Function:
    """Compile a graph for inputs like the examples; what it compiled before in any process, it finds on disk.

    Raises:
        TracingError: It cannot be compiled.
    """
    try:
        from torch._inductor import config, standalone_compile
    except ImportError as error:
        raise TracingError(f"torch {torch.__version__} is too old for it; 2.8 and later can compile") from error
    on_host = all(example.device.type == "cpu" for example in examples)
    try:
        graph = for_host(graph, examples) if on_host else graph
        with warnings.catch_warnings(), config.patch(FOR_HOST if on_host else {}):
            warnings.simplefilter("ignore")
            function: Any = standalone_compile(graph, list(examples), dynamic_shapes="from_example_inputs")
    except Exception as error:
        raise reason_of(error) from error
    return function
