"""A device besides the host, for machines that have none: tensors that say they are elsewhere, and are computed here.

It behaves as an accelerator does where that matters to this library: tensors of both devices do not mix, its random
numbers come from a generator of its own, and whoever reads a value waits for it. What it computes is exact, so a run on
it has to end where the same run on the host does.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from multilevel.hypergrad.looking import show_waiting

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
}
"""Operations whose result, or its size, the host waits for."""
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
CROSSES = {aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default}
"""Operations that take tensors of both devices."""


class Second:
    """What torch asks of ``torch.emulated``."""

    active: SecondDevice | None = None

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.active is not None

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return int(self.is_available())

    def _is_in_bad_fork(self) -> bool:
        return False

    def device(self, device: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def manual_seed(self, seed: int) -> None:
        self.manual_seed_all(seed)

    def manual_seed_all(self, seed: int) -> None:
        if self.active is not None:
            self.active.generator.manual_seed(seed)

    def get_rng_state(self, device: Any = None) -> Tensor:
        assert self.active is not None
        return self.active.generator.get_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        assert self.active is not None
        self.active.generator.set_state(state)


SECOND = Second()


class _Hook(backend_registration._DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return SECOND.is_available()


backend_registration._setup_privateuseone_for_python_backend("emulated", backend_module=SECOND, hook=_Hook())
DEVICE = torch.device("emulated", 0)


class Elsewhere(Tensor):
    """A tensor on the second device.

    Attributes:
        inner: Where its values are; in ``__dict__``, where subclasses of tensors have them.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        new = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            inner.stride(),
            inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        new.inner = inner
        return new

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner!r})"

    def tolist(self) -> Any:
        self.sum().item()  # waits
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone()
        memo[id(self)] = copy = nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy
        return copy

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a tensor of the second device outlived it")


class SecondDevice(TorchDispatchMode):
    """While its block runs, tensors can be made on the second device, and moved there.

    Attributes:
        generator: Its random numbers.
        waits: How often the host waited for a value, by the name of the operation that it waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> SecondDevice:
        SECOND.active = self
        # Modules keep their parameters when they are moved, as they do on any device that torch knows from the start.
        self._swapping = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        show_waiting()
        super().__exit__(*error)
        torch.__future__.set_swap_module_params_on_conversion(self._swapping)
        SECOND.active = None

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        away = any(isinstance(tensor, Elsewhere) for tensor in given)
        if away:
            _refuse_mixing(function, given)
        result = _where(function, given, kwargs, away=away)
        if away and (function in READS or not result):
            self.waits[str(function)] += 1
        if result and kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        inner_args, inner_kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.inner, (args, kwargs))
        if not (result and torch.Tag.nondeterministic_seeded in function.tags):
            found = function(*inner_args, **inner_kwargs)
        else:
            found = self._drawn(function, inner_args, inner_kwargs)
        return _outside(found, given) if result else found

    def _drawn(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The result of a random operation, by the device's own generator."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            return function(*args, **kwargs)
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)


def _refuse_mixing(function: Any, given: list[Tensor]) -> None:
    """Numbers may be on the host, and indices."""
    mixed = [tensor for tensor in given if tensor.dim() > 0 and not isinstance(tensor, Elsewhere)]
    if not mixed or function in CROSSES or (function in INDEXES and isinstance(given[0], Elsewhere)):
        return
    raise RuntimeError(f"Expected all tensors to be on the same device, in {function}")


def _where(function: Any, given: list[Tensor], kwargs: dict[str, Any], *, away: bool) -> bool:
    """Whether the result is on the second device."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == DEVICE.type
    return isinstance(given[0], Elsewhere) if function in CROSSES else away


def _outside(found: Any, given: list[Tensor]) -> Any:
    """Results on the second device; what was written to is handed back itself."""
    same = {id(tensor.inner): tensor for tensor in given if isinstance(tensor, Elsewhere)}
    return tree_map_only(Tensor, lambda tensor: same[id(tensor)] if id(tensor) in same else Elsewhere(tensor), found)


# torch.tensor(numbers, device=...) fills one on the host and copies it past every mode.


@torch.library.impl("aten::empty_strided", "privateuseone")
def _empty(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
):
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::_copy_from", "privateuseone")
def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False):
    assert isinstance(target, Elsewhere)
    target.inner.copy_(source)
    return target
