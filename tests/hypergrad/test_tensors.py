"""Numbers read from tuples of tensors, against the tensors they are read from."""

from __future__ import annotations

import pytest
import torch

from multilevel.hypergrad.tensors import dot, flatten, inner, length, norm

from ..conftest import EXACT

SHAPES = {"one": [(3,)], "several": [(3, 2), (4,), ()]}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_inner_product_and_length(shapes: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = ([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(2))
    expected = float(flatten(x) @ flatten(y))
    assert inner(x, y) == pytest.approx(expected, rel=EXACT)
    assert dot(x, y).item() == pytest.approx(expected, rel=EXACT)
    assert length(x) == pytest.approx(flatten(x).square().sum().item() ** 0.5, rel=EXACT)
    assert norm(x).item() == pytest.approx(length(x), rel=EXACT)


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e200, float("inf")])
def test_a_length_is_neither_lost_nor_overflows_between_tensors(size: float) -> None:
    x = [torch.full((1,), size, dtype=torch.float64)] * 4
    assert length(x) == pytest.approx(2 * size, rel=EXACT)
