"""Programs that are recorded graphs run as they are: all but the compiler itself, in a hundredth of its time."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each recorded graph instead of compiling it."""
    import torch._inductor

    def taken_as_it_is(graph: Any, examples: Any, **options: Any) -> Any:
        return lambda *tensors: graph(*tensors)

    monkeypatch.setattr(torch._inductor, "standalone_compile", taken_as_it_is)
