"""A lazy copy is a copy, whoever writes to what, and by whatever means; and nobody who holds the original loses it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from multilevel.hypergrad import lazy_copies as module
from multilevel.hypergrad.lazy_copies import copied, parted
from multilevel.hypergrad.same_bits import same_bits

WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda t: t.detach().mul_(2),
    "data": lambda t: t.data.mul_(2),
    "a view": lambda t: t.data.view(-1)[5:6].fill_(7),
    "an array": lambda t: t.detach().numpy().fill(7),
    "foreach": lambda t: torch._foreach_add_([t.data], 1),
    "out": lambda t: torch.mul(t.data, 2, out=t.data),
}
PLACES = ["original", "copy"]


@pytest.fixture(params=[True, False], ids=["lazy", "at once"])
def lazy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether torch has lazy clones."""
    if request.param:
        assert module._lazy_clone is not None
    else:
        monkeypatch.setattr(module, "_lazy_clone", None)
    return bool(request.param)


def large() -> nn.Parameter:
    return nn.Parameter(torch.randn(64, 64))


def copy_of(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return copied(tensor)


def address(tensor: Tensor) -> int:
    return tensor.const_data_ptr()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_to_one_is_none_to_the_other(write: Callable[[Tensor], object], place: str, lazy: bool) -> None:
    original = large()
    copy, values = copy_of(original), original.tolist()
    assert (address(original) == address(copy)) is lazy
    assert same_bits([original], [copy])
    written, other = (original, copy) if place == "original" else (copy, original)
    write(written)
    assert not same_bits([original], [copy])
    assert other.tolist() == values
    assert written.tolist() != values


def test_a_graph_keeps_the_values_that_it_was_built_with(lazy: bool) -> None:
    original, x = large(), torch.randn(3, 64)
    copy = copy_of(original).requires_grad_()
    loss = (x @ copy).tanh().square().sum()
    (expected,) = torch.autograd.grad((x @ copy).tanh().square().sum(), copy)
    parted([copy])
    with torch.no_grad():
        original.add_(1)
    (found,) = torch.autograd.grad(loss, copy)
    assert torch.equal(found, expected)


def test_once_parted_the_original_stays_where_it_is(lazy: bool) -> None:
    original = large()
    place, copy = address(original), copy_of(original)
    parted([copy])
    original.data.mul_(2)
    assert address(original) == place
    assert not same_bits([original], [copy])


HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "a detached one": Tensor.detach,
    "an array": lambda t: torch.from_numpy(t.detach().numpy()),
    "a row": lambda t: t.detach()[0],
}


@pytest.mark.parametrize("hold", HELD.values(), ids=HELD.keys())
def test_whoever_holds_the_original_sees_what_becomes_of_it(hold: Callable[[Tensor], Tensor]) -> None:
    original = large()
    held = hold(original)
    copy, values = copy_of(original), original.tolist()
    original.data.fill_(7)
    assert bool((held == 7).all())
    assert copy.tolist() == values


KINDS: dict[str, Callable[[], Tensor]] = {
    "small": lambda: torch.randn(3),
    "a part of another": lambda: torch.randn(9000)[100:8292],
    "channels last": lambda: torch.randn(8, 4, 16, 16).to(memory_format=torch.channels_last),
    "with gaps": lambda: torch.randn(64, 128)[:, ::2],
    "of an array": lambda: torch.from_numpy(torch.randn(64, 64).numpy()),
    "shared between processes": lambda: torch.randn(64, 64).share_memory_(),
    "a conjugate": lambda: torch.randn(2000, dtype=torch.complex64).conj(),
    "half precision": lambda: torch.randn(64, 64).to(torch.bfloat16),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_whatever_it_is_its_copy_is_another_with_the_same_entries(make: Callable[[], Tensor]) -> None:
    original = make()
    copy, values = copied(original), original.tolist()
    assert same_bits([original], [copy])
    assert (copy.stride(), copy.dtype) == (original.stride(), original.dtype)
    original.mul_(2)
    assert not same_bits([original], [copy])
    assert copy.tolist() == values
