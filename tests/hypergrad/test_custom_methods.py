"""A method of one's own: registered by a decorator, or found in an installed package's entry points."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from multilevel import Config, ConfigError, Exact, ImplicitMethod, Method, best_response, register
from multilevel.hypergrad import registry
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.tensors import Tensors, scale

from ..conftest import EXACT


@pytest.fixture
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.available()
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))


@pytest.mark.usefixtures("_own_registry")
def test_one_method_to_write_is_enough() -> None:
    @register("half")
    @dataclass(frozen=True)
    class Half(ImplicitMethod):
        factor: float = 0.5

        def solve(self, at: Linearization, vector: Tensors) -> Tensors:
            return scale(vector, self.factor)

    assert Config(type="half").method == Half()
    assert Config(type={"name": "half", "factor": 0.25}).method == Half(0.25)
    lam = torch.tensor([0.3, -0.2], requires_grad=True)

    def inner(w: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        return (w**2).sum() - (w * lam).sum()  # H = 2: one half is exact

    half, exact = (best_response(inner, lam.detach() / 2, lam, method=m) for m in (Half(), Exact()))
    (got,), (true,) = (torch.autograd.grad((w**3).sum(), lam) for w in (half, exact))
    torch.testing.assert_close(got, true, rtol=EXACT, atol=EXACT)


@pytest.mark.usefixtures("_own_registry")
def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="frozen dataclass"):

        @register("thawed")
        class Thawed(ImplicitMethod):
            def solve(self, at: Linearization, vector: Tensors) -> Tensors:
                return vector

    with pytest.raises(ConfigError, match="expected a subclass of Method"):
        register("int")(int)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="belongs to"):

        @register("cg")
        @dataclass(frozen=True)
        class Other(Exact):
            pass


def test_a_class_without_solve_cannot_be_built() -> None:
    @dataclass(frozen=True)
    class Empty(Method):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()  # type: ignore[abstract]


def test_an_installed_package_adds_a_method(tmp_path: Path) -> None:
    package = tmp_path / "site"
    (package / "thirdparty").mkdir(parents=True)
    (package / "thirdparty" / "__init__.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from multilevel import ImplicitMethod, register

            @register("thirdparty")
            @dataclass(frozen=True)
            class ThirdParty(ImplicitMethod):
                def solve(self, at, vector):
                    return vector
        """)
    )
    info = package / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[multilevel.methods]\nthirdparty = thirdparty\n")
    program = "from multilevel import Config; print(Config(type='thirdparty').method)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "thirdparty"
