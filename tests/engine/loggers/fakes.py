"""As much of an engine as a callback sees, and runs of it that can be killed and resumed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from multilevel.configs import Config, EngineConfig
from multilevel.engine.callbacks import Callback
from multilevel.engine.graph import Graph


class Watched:
    """A tensor that counts how often it is fetched."""

    def __init__(self, value: float) -> None:
        self.value, self.fetched = torch.tensor(value), 0
        self.shape, self.size = self.value.shape, self.value.size

    def item(self) -> float:
        self.fetched += 1
        return self.value.item()

    def tolist(self) -> Any:
        self.fetched += 1
        return self.value.tolist()


def fake_problem(name: str, log_step: int) -> Any:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    return SimpleNamespace(name=name, count=0, config=Config(log_step=log_step), optimizer=optimizer, scheduler=None)


def fake_engine(log_step: int = 10, **problems: int) -> Any:
    """A stack of problems, outermost last; each keyword gives one's own ``log_step``."""
    names = list(problems)
    edges = list(zip(names[1:], names, strict=False))
    return SimpleNamespace(
        step_count=0,
        config=EngineConfig(train_iters=25, log_step=log_step),
        problems={name: fake_problem(name, own) for name, own in problems.items()},
        graph=Graph(names, upper_to_lower=edges, lower_to_upper=edges),
        last_metrics={},
    )


def steps(engine: Any, callbacks: Iterable[Callback], until: int) -> list[Watched]:
    """Engine steps of every problem, each with a validation every 5, and what they measured."""
    losses: list[Watched] = []
    while engine.step_count < until:
        for name, problem in engine.problems.items():
            problem.count += 1
            losses.append(Watched(problem.count / 4))
            engine.last_metrics[name] = {"loss": losses[-1]}
            for callback in callbacks:
                callback.on_level_step(engine, problem, engine.last_metrics[name])
        engine.step_count += 1
        for callback in callbacks:
            callback.on_step_end(engine)
        if engine.step_count % 5 == 0:
            for callback in callbacks:
                callback.on_validation(engine, {"accuracy": torch.tensor(engine.step_count / 32)})
    return losses


def run(engine: Any, *callbacks: Callback, until: int = 25) -> list[Watched]:
    """A whole run."""
    for callback in callbacks:
        callback.on_run_start(engine)
    losses = steps(engine, callbacks, until)
    for callback in callbacks:
        callback.on_run_end(engine)
    return losses


def checkpoint(engine: Any, callback: Callback) -> dict[str, Any]:
    """The state of a run after a trip through a file."""
    counts = {name: problem.count for name, problem in engine.problems.items()}
    file = io.BytesIO()
    torch.save({"step": engine.step_count, "counts": counts, "callback": callback.state_dict()}, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def restore(engine: Any, callback: Callback, state: dict[str, Any]) -> None:
    engine.step_count = state["step"]
    for name, count in state["counts"].items():
        engine.problems[name].count = count
        engine.last_metrics[name] = {"loss": Watched(count / 4)}
    callback.load_state_dict(state["callback"])


def killed_and_resumed(make: Callable[[], Any], engine: Callable[[], Any], saved: int, killed: int) -> Any:
    """The logger of a run that was killed some steps after its checkpoint, and resumed from that to its end.

    A checkpoint at step 0 is written before the run starts, as the engine does.
    """
    first, before = make(), engine()
    state = checkpoint(before, first)
    first.on_run_start(before)
    if saved:
        steps(before, [first], saved)
        state = checkpoint(before, first)
    steps(before, [first], killed)
    kill(first)
    again, after = make(), engine()
    restore(after, again, state)
    run(after, again)
    return again


def kill(logger: Any) -> None:
    """End a logger as a kill would: the system closes its files, and nobody says goodbye."""
    logger.close(None)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
