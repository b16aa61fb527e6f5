"""A fast comparison finds what torch.equal finds."""

from __future__ import annotations

import pytest
import torch

from multilevel.problems import same_bits as module
from multilevel.problems.same_bits import FEW, same_bits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("numpy", [True, False])
@pytest.mark.parametrize("size", [7, FEW + 1, 3 * FEW])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_entry_that_is_another_is_found(
    dtype: torch.dtype, size: int, numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not numpy:
        monkeypatch.setattr(module, "np", None)
    monkeypatch.setattr(module, "CHUNK", FEW)
    x = torch.randn(size, dtype=dtype).requires_grad_()
    for entry in (0, size // 2, size - 1):
        y = x.detach().clone()
        assert same_bits(x, y)
        y[entry] = -y[entry]
        assert not same_bits(x, y)


def test_tensors_with_gaps_and_turned_ones() -> None:
    x = torch.randn(2 * FEW, 2)
    assert same_bits(x[:, 0], x.clone()[:, 0])
    assert same_bits(x.t(), x.clone().t())
    assert not same_bits(x[:, 0], x[:, 1])
