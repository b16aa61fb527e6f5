"""A fast comparison finds what torch.equal finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multilevel.hypergrad import same_bits as module
from multilevel.hypergrad.same_bits import same_bits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("size", [0, 7, 2**14])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_entry_that_is_another_is_found(
    dtype: torch.dtype, size: int, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module._compare is not None
    if not fast:
        monkeypatch.setattr(module, "_compare", None)
    x = torch.randn(size, dtype=dtype).requires_grad_()
    first = torch.zeros(3)
    assert same_bits((first, x), (first, x.detach().clone()))
    for entry in {0, size // 2, size - 1} if size else ():
        y = x.detach().clone()
        y[entry] = -y[entry]
        assert not same_bits((first, x), (first, y))


def test_tensors_with_gaps_and_turned_ones() -> None:
    x = torch.randn(40, 2)
    assert same_bits([x[:, 0]], [x.clone()[:, 0]])
    assert same_bits([x.t()], [x.clone().t()])
    assert same_bits([x.t()], [x.t().contiguous()])
    assert not same_bits([x[:, 0]], [x[:, 1]])


def test_other_shapes_and_values_that_lie_in_memory_otherwise() -> None:
    z = torch.randn(3, dtype=torch.complex64)
    assert not same_bits([torch.zeros(2, 3)], [torch.zeros(3, 2)])
    assert not same_bits([z], [z.conj()])
    assert not same_bits([z.imag], [z.conj().imag])


class Logged(Tensor):
    """May keep its numbers elsewhere."""


def test_subclasses_compare_as_they_do() -> None:
    x = torch.randn(3).as_subclass(Logged)
    assert same_bits([x], [x.clone()])
    assert not same_bits([x], [-x])
