"""Mixed precision: bf16 agrees with fp32 to its own accuracy, and fp16 scales, unscales once, skips and counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import Config, ConfigError, Engine, EngineConfig
from multilevel.engine.gradients import LevelGradients

from ..conftest import EXACT
from ..givens import Given, Vector, assert_same, bits

BF16 = 2.0**-8
"""Half the distance between 1 and the next number of bf16."""

METHODS = ["identity", "darts", "neumann", "cg", "minres", "gmres", "exact", "nystrom", "sama", "unroll"]


class Weight(nn.Module):
    """A matrix near the identity, whose products autocast computes in low precision."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(size, size, generator=generator)
        self.matrix = nn.Parameter((torch.eye(size) + 0.1 * noise).float())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def quadratic(method: Any, precision: str, **config: Any) -> Engine:
    """|X W - Y|^2 + |W - P|^2 below, |X W - 1|^2 above, in the matrices W and P."""
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randn(8, 6, generator=generator, dtype=torch.float32) for _ in range(2))

    def lower(p: Given, batch: Any) -> Tensor:
        return (p.module(x) - y).float().square().mean() / 4 + (
            p.module.matrix - p.upper.module.matrix
        ).square().sum() / 2

    def upper(p: Given, batch: Any) -> Tensor:
        return (p.lower(x) - 1).float().square().mean()

    low = Given(
        "lower", lower, Weight(), lr=0.1, config=Config(type=method, unroll_steps=3, precision=precision, **config)
    )
    up = Given("upper", upper, Weight(), lr=0.1, config=Config(precision=precision, **config))
    return Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(train_iters=27))


def settled(method: Any, precision: str) -> Tensor:
    """The hypergradient after one inner loop in full precision."""
    engine = quadratic(method, "fp32")
    for _ in range(2):
        engine.step()
    other = quadratic(method, precision)
    for name in ("upper", "lower"):
        other[name].module.load_state_dict(engine[name].module.state_dict())
    if method == "unroll":
        other.step()
    return other.hypergradient("upper")[0]


def distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("method", METHODS)
def test_bf16_hypergradients_agree_with_fp32_to_the_accuracy_of_bf16(method: str) -> None:
    # darts divides a difference of rounded losses' gradients by its radius: the rounding is amplified.
    chosen: Any = (
        {"name": "darts", "alpha": 1.0}
        if method == "darts"
        else {"name": "sama", "alpha": 1.0}
        if method == "sama"
        else method
    )
    low, full = settled(chosen, "bf16"), settled(chosen, "fp32")
    assert 0 < distance(low, full) < 8 * BF16


@pytest.mark.parametrize("method", METHODS)
def test_fp16_takes_derivatives_of_best_responses_in_full_precision(method: str) -> None:
    """What is left of half precision is the upper's own forward and backward pass."""
    low, full = settled(method, "fp16"), settled(method, "fp32")
    assert distance(low, full) < 1e-3


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("method", ["cg", "darts", "unroll"])
def test_a_scaled_run_is_the_unscaled_one(method: str, size: int) -> None:
    """On the CPU torch's own scaler works too: a power of two changes no bit but where numbers underflow."""
    runs = []
    for precision in ("fp16", "fp32"):
        engine = quadratic(method, precision, gradient_accumulation=size, gradient_clipping=0.5)
        engine.run()
        runs.append(engine)
    assert runs[0]["lower"].level.update.skipped == 0
    for name in ("upper", "lower"):
        a, b = (run[name].parameters[0] for run in runs)
        assert distance(a, b) < 1e-2
        assert not torch.equal(a, b)


class FakeScaler:
    """Scales by a power of two and overflows when told to; says what was asked of it."""

    def __init__(self, overflows: tuple[int, ...] = ()) -> None:
        self.scale_now, self.asked, self.steps, self.overflows = 1024.0, [], 0, overflows
        self.unscaled = 0

    def scale(self, loss: Tensor) -> Tensor:
        self.asked.append("scale")
        return loss * self.scale_now

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.asked.append("unscale")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= self.scale_now

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.asked.append("step")
        if self.steps not in self.overflows:
            optimizer.step()

    def update(self) -> None:
        self.asked.append("update")
        self.scale_now *= 0.5 if self.steps in self.overflows else 1.0
        self.steps += 1

    def get_scale(self) -> float:
        return self.scale_now

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale_now, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale_now, self.steps = state["scale"], state["steps"]


def scalars(method: Any = "cg", size: int = 1, clipping: float = 0.0, overflows: tuple[int, ...] = ()) -> Engine:
    config = {"gradient_accumulation": size, "gradient_clipping": clipping}
    low = Given(
        "lower",
        lambda p, b: torch.cosh(p.module() - p.upper()).sum(),
        Vector(0.0, 1.0),
        config=Config(type=method, unroll_steps=2, **config),
    )
    up = Given("upper", lambda p, b: ((p.lower() - 3) ** 2).sum(), Vector(2.0, -1.0), config=Config(**config))
    engine = Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(train_iters=12))
    if overflows != (-1,):
        for problem in (up, low):
            problem.level.update.scaler = FakeScaler(overflows)  # type: ignore[assignment]
            problem.level.update._copies = True
    return engine


@pytest.mark.parametrize("clipping", [0.0, 0.1])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("method", ["cg", "darts", "identity", {"name": "neumann", "alpha": 0.1}, "unroll"], ids=str)
def test_hypergradients_are_scaled_and_unscaled_once(method: Any, size: int, clipping: float) -> None:
    """In float64, scaling by 1024 and back is exact, but for darts' radius: the run is the same one."""
    scaled, plain = scalars(method, size, clipping), scalars(method, size, clipping, overflows=(-1,))
    scaled.run()
    plain.run()
    for name in ("upper", "lower"):
        torch.testing.assert_close(scaled[name].parameters[0], plain[name].parameters[0], rtol=0, atol=EXACT)
    assert scaled["upper"].level.update.steps > 0


def test_the_order_of_a_scaled_step() -> None:
    engine = scalars(size=2)
    seen: list[float] = []
    engine["lower"].grad_callback = lambda: seen.append(engine["lower"].parameters[0].grad.abs().max().item())  # type: ignore[method-assign]
    engine.step()
    engine.step()
    scaler = engine["lower"].level.update.scaler
    assert scaler.asked == ["scale", "scale", "unscale", "step", "update"]
    assert max(seen) < 10  # unscaled before it is clipped and shown


@pytest.mark.parametrize("method", ["cg", "unroll"])
def test_a_step_that_overflowed_is_skipped_and_counted(method: str) -> None:
    engine = scalars(method, overflows=(1, 3))
    engine.run()
    low, up = engine["lower"].level.update, engine["upper"].level.update
    assert (low.steps, low.skipped) == (10, 2)
    assert up.steps + up.skipped == 5  # one for every two steps below that were taken
    assert engine.last_metrics["lower"]["skipped steps"] == 2


def test_a_skipped_step_moves_nothing() -> None:
    engine = scalars(overflows=(0,))
    before = engine["lower"].parameters[0].detach().clone()
    engine.step()
    assert torch.equal(engine["lower"].parameters[0], before)
    assert engine["lower"].level.update.steps == 0
    assert engine["lower"].parameters[0].grad is None


def test_callbacks_see_scaled_gradients() -> None:
    engine, seen = scalars(), []

    class Watch:
        def on_gradients(self, engine: Engine, problem: Given, gradients: LevelGradients) -> None:
            seen.append(gradients.total[0].abs().max().item())

        def __getattr__(self, name: str) -> Any:
            return lambda *args: None

    engine.callbacks.callbacks.append(Watch())  # type: ignore[arg-type]
    engine.step()
    assert seen[0] > 100


def test_the_scale_is_part_of_the_state() -> None:
    whole, second = (quadratic("cg", "fp16") for _ in range(2))
    for _ in range(4):
        whole.step()
    whole["lower"].level.update.scaler._scale.fill_(256.0)  # type: ignore[union-attr]
    second.load_state_dict(whole.state_dict())
    assert second["lower"].level.update.scaler.get_scale() == 256.0  # type: ignore[union-attr]
    whole.run()
    second.run()
    assert_same(bits(second), bits(whole))


def test_what_cannot_be_scaled_is_refused() -> None:
    low = Vector(1.0)
    with pytest.raises(ConfigError, match=r"'p': precision='fp16' scales losses, .* evaluates its loss by itself"):
        Engine(
            [
                Given(
                    "p",
                    lambda p, b: p.module().sum(),
                    low,
                    optimizer=torch.optim.LBFGS(low.parameters()),
                    config=Config(precision="fp16"),
                )
            ]
        )
    half = Vector(1.0).half()
    with pytest.raises(ConfigError, match=r"its parameters are torch.float16; leave the module"):
        Engine([Given("p", lambda p, b: p.module().sum(), half, config=Config(precision="fp16"))])


def test_autocast_is_that_of_the_device() -> None:
    seen: list[Any] = []

    def lower(p: Given, batch: Any) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return (p.module() - p.upper()).square().sum()

    for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        seen.clear()
        low = Given("lower", lower, config=Config(type="identity", precision=precision))  # type: ignore[arg-type]
        engine = Engine([Given("upper", lambda p, b: p.lower().sum()), low], edges=[("upper", "lower")])
        engine["lower"].level.training_step.train(engine["lower"].level.next_moment())
        assert seen == [(dtype is not None, dtype or torch.bfloat16)]


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
"""A GPU is tested where there is one; without, there is nothing to skip."""


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["identity", "cg", "darts"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_run_in_low_precision_ends_near_that_in_full(device: str, method: str, precision: str) -> None:
    """With torch's own scaler, on every device there is: the upper's parameters move the same way."""
    moved = []
    for kind in (precision, "fp32"):
        generator = torch.Generator().manual_seed(6)
        data = [(torch.randn(16, 6, generator=generator).float(), torch.randn(16, 6, generator=generator).float())]

        def lower(p: Given, batch: Any) -> Tensor:
            inputs, targets = batch
            distance = (p.module.matrix - p.upper.module.matrix).square().sum()
            return (p.module(inputs) - targets).float().square().mean() + distance / 2

        def upper(p: Given, batch: Any) -> Tensor:
            inputs, targets = batch
            return (p.lower(inputs) - targets).float().square().mean()

        config = Config(type=method, unroll_steps=2, precision=kind)
        low = Given("lower", lower, Weight(), lr=0.1, train_data_loader=data, config=config)
        up = Given("upper", upper, Weight(), lr=0.1, train_data_loader=data, config=Config(precision=kind))
        engine = Engine([up, low], edges=[("upper", "lower")], config=EngineConfig(train_iters=20, device=device))
        start = engine["upper"].parameters[0].detach().clone()
        engine.run()
        moved.append(engine["upper"].parameters[0].detach() - start)
        assert engine["upper"].level.update.steps >= 8
    assert distance(moved[0], moved[1]) < 0.1
