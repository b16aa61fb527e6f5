"""One level step of one problem: its batch, its gradients through the levels below, its update, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hypergrad.errors import CheckpointWarning, NonFiniteError, warn_once
from ..hypergrad.replay import RandomState
from ..problems.moment import Moment
from ..problems.packing import PackingError
from ..problems.training_step import NOTHING
from .gradients import LevelGradients
from .guard import Guard
from .recording import ending_loops, record
from .rollback import RollBack
from .schedule import Schedule, start_inner_loop
from .times import Stopwatch, Times

if TYPE_CHECKING:
    from .compiled import Compilation, CompiledStep
    from .engine import Engine


class Stepper:
    """Advances the problems of an engine, each when it is ready.

    Args:
        engine: The engine, whose problems and gradients are there.

    Attributes:
        times: Where the time of each problem's level steps went.
    """

    def __init__(self, engine: Engine) -> None:
        config = engine.config
        self._engine = engine
        self._gradients = engine.gradients
        self._levels = {name: problem.level for name, problem in engine.problems.items()}
        self._schedule = Schedule(engine.graph, engine.problems)
        self._guard = Guard(engine.problems, engine.gradients, config.non_finite, config.log_step)
        self._roll_back = self._remembering() if config.roll_back else None
        loops = {name: level.loop for name, level in self._levels.items() if level.loop is not None}
        self._records = bool(loops)
        constrained = {name: engine.graph.constrained_by(name) for name in engine.problems}
        self._loops_below = {name: [loops[m] for m in lowers if m in loops] for name, lowers in constrained.items()}
        for loop in loops.values() if config.roll_back else ():
            loop.graphs = None  # what is taken again differs from what was differentiated
        self._compiled = self._compiling() if config.compile else {}
        self.times = {name: Times() for name in engine.problems}

    @property
    def compilations(self) -> Mapping[str, Compilation]:
        """What became of each problem's steps under ``EngineConfig(compile=True)``; empty without."""
        return {name: step.compilation for name, step in self._compiled.items()}

    def advance(self, name: str) -> bool:
        """Take a level step of a problem if it is ready, and say whether it was."""
        if not self._schedule.ready(name):
            return False
        engine, problem, level = self._engine, self._engine.problems[name], self._levels[name]
        watch = self._started_watch(name)
        self._guard.before_step(engine.step_count)
        starts = self._schedule.starts_inner_loop(name)
        before = None
        if self._roll_back is not None:
            self._roll_back.begin()
            before = self._roll_back.random_before(starts)
        if starts:
            start_inner_loop(problem)
        episodes, restored = engine.environment.episodes, self._guard.restored
        moment = level.next_moment()
        metrics, stepped = self._train(name, moment, watch)
        metrics.update(engine.environment.metrics(name, episodes))
        engine.last_metrics[name] = metrics
        self._schedule.advanced(name)
        if stepped:
            self._schedule.stepped(name)
        if self._roll_back is not None and self._guard.restored == restored:
            self._after_step(name, moment, before, stepped, self._roll_back)
        if self._roll_back is not None and self._guard.restored > restored:
            self._roll_back = self._remembering()  # nothing below may return to where it diverged from
        self.times[name].steps += 1
        engine.callbacks.on_level_step(engine, problem, metrics)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Readiness, and what the guard and the roll-back remember."""
        return {
            "schedule": self._schedule.state_dict(),
            "guard": self._guard.state_dict(),
            "roll_back": self._roll_back_state(self._roll_back) if self._roll_back is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._schedule.load_state_dict(state["schedule"])
        self._guard.load_state_dict(state["guard"])
        if self._roll_back is not None:
            self._roll_back = self._remembering()
            self._roll_back.load_state_dict(state["roll_back"] or {})

    def _train(
        self, name: str, moment: Moment, watch: Stopwatch, *, again: bool = False
    ) -> tuple[dict[str, Tensor], bool]:
        """Train a problem on a moment; its metrics, and whether its optimizer stepped."""
        engine, problem, level = self._engine, self._engine.problems[name], self._levels[name]
        if self._records:
            record(self._gradients.hierarchy, self._levels, name, engine.graph.uppers(name))
        watch.lap("data")
        metrics: dict[str, Tensor] = {}

        def differentiate() -> tuple[Tensor, LevelGradients]:
            compiled = self._compiled.get(name)
            if compiled is not None:
                result = compiled(moment)
                watch.lap("compile" if result is None else "forward")
                if result is not None:
                    loss, shown, found = result
                    metrics.update(shown)
                    return loss, found
            evaluation, shown = level.training_step.train(moment)
            metrics.update(shown)
            watch.lap("forward")
            loss = level.update.scaled(evaluation.loss)
            found = self._gradients.total(name, loss, watch, level.gradients)
            if compiled is not None:
                compiled.took_eagerly((evaluation.loss, shown, found), watch.laps)
                watch.lap("compile")
            return evaluation.loss, found

        def once_more() -> tuple[Tensor, Sequence[Tensor | None]]:
            loss, found = differentiate()
            return loss, found.total

        stepped = False
        if (found := self._admitted(name, differentiate, again=again)) is not None:
            ended = self._loops_below[name]
            with ending_loops(level, ended) if ended else NOTHING:
                stepped = level.update.apply(metrics, found.total, again=once_more)
        elif level.loop is not None:
            level.loop.drop_batch()
        problem.count += 1
        if level.update.skipped:
            metrics["skipped steps"] = torch.tensor(level.update.skipped)
        if self._guard.skipped[name]:
            metrics["skipped batches"] = torch.tensor(self._guard.skipped[name])
        watch.lap("update")
        return metrics, stepped

    def _admitted(
        self, name: str, differentiate: Callable[[], tuple[Tensor, LevelGradients]], *, again: bool
    ) -> LevelGradients | None:
        """The gradients of a batch; ``None`` where they are not finite and the run goes on without them."""
        engine = self._engine
        self._guard.before_batch(name)
        try:
            loss, found = differentiate()
        except NonFiniteError as error:  # a method that met such numbers before it had a result
            self._guard.leave_out(name, NonFiniteError(f"problem '{name}': no hypergradient: {error}"))
            return None
        except Exception:
            if (loop := self._levels[name].loop) is not None:
                loop.drop_batch()  # whoever catches it may go on
            raise
        if not again:
            engine.callbacks.on_gradients(engine, engine.problems[name], found)
        upcoming = engine.step_count + 1
        last = upcoming == engine.config.train_iters
        return found if self._guard.admits(name, found, loss, step=upcoming, last=last) else None

    def _roll_back_state(self, roll_back: RollBack) -> dict[str, Any] | None:
        try:
            return roll_back.state_dict()
        except PackingError as error:
            warn_once(
                "unpackable roll-back",
                f"roll_back, in a batch: {error}; a run that goes on from this checkpoint rolls back to it at first, "
                "and not to where the inner loop began",
                CheckpointWarning,
            )
            return None

    def _compiling(self) -> dict[str, CompiledStep]:
        from .compiled import CompiledStep, CompiledUpdate, Pace

        engine = self._engine
        for problem in engine.problems.values():
            update = problem.level.update
            update.optimizer_step = CompiledUpdate(problem, update.optimizer_step, Pace(engine), self._compiled_for)
        return {
            name: CompiledStep(name, engine.problems, self._gradients, Pace(engine), self._compiled_for)
            for name in engine.problems
        }

    def _compiled_for(self, seconds: float) -> None:
        """So much of the part of a level step that is running was spent on compiling."""
        self._watch.aside("compile", seconds)

    def _started_watch(self, name: str) -> Stopwatch:
        self._watch = Stopwatch(self.times[name], self._engine.device if self._engine.config.timing else None)
        return self._watch

    def _remembering(self) -> RollBack:
        return RollBack(self._engine.graph, self._engine.problems, self._train_again)

    def _train_again(self, name: str, moment: Moment) -> bool:
        return self._train(name, moment, self._started_watch(name), again=True)[1]

    def _after_step(
        self, name: str, moment: Moment, before: RandomState | None, stepped: bool, roll_back: RollBack
    ) -> None:
        roll_back.took(name, moment, before)
        if stepped and self._schedule.warmed_up(name):
            roll_back.warmed_up(name)
        if stepped:
            roll_back.stepped(name)
