"""The engine: steps every level of a hierarchy, lowest first, and differentiates each through the levels below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..configs import EngineConfig
from ..hypergrad.errors import ConfigError, GraphError, choices
from ..hypergrad.method import Method
from ..hypergrad.tensors import Tensors
from ..problems.problem import Problem
from .audit.report import Audit
from .callbacks import Callback, Callbacks
from .declare import Dependencies, Name, by_name, declared_graph
from .device import resolve_device
from .environment import environment
from .gradients import Gradients
from .inspection import hypergradient
from .modes import evaluation_mode
from .recording import ending_loops, record
from .schedule import Schedule
from .seeding import seed_everything


class Engine:
    """Runs a hierarchy of problems.

    Args:
        problems: The problems, in any order.
        dependencies: ``{"u2l": {upper: [lowers]}, "l2u": {lower: [uppers]}}``, of problems or their names: whose
            parameters enter a lower's loss, and whose solution enters an upper's.
        edges: ``[(upper, lower), ...]``, the short form: both directions of each pair.
        config: Length of the run, device, response; ``EngineConfig()`` by default.
        env: Any object, which every problem then finds as ``self.env``. A gymnasium environment, single or vector, is
            seeded from ``config.seed`` and closed when :meth:`run` ends, and the episodes that end in it are among the
            metrics of the problem that steps it. Step it in ``get_batch``, not in ``training_step``, which is evaluated
            as often as a method needs.
        callbacks: What watches the run, in order.

    Attributes:
        problems: The problems by name.
        graph: The hierarchy; ``graph.networkx`` is a :class:`networkx.DiGraph`.
        gradients: Differentiates through the hierarchy.
        step_count: Engine steps taken.
        last_metrics: Per problem, what its last level step returned: detached tensors, the loss among them.
        last_validation: What the last validation returned.

    Raises:
        GraphError: The problems and edges do not form a hierarchy.
        ConfigError: A problem lacks a part, or a setting does not fit.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        dependencies: Dependencies | None = None,
        *,
        edges: Sequence[tuple[Name, Name]] | None = None,
        config: EngineConfig | None = None,
        env: Any = None,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        if config is not None and not isinstance(config, EngineConfig):
            raise ConfigError(f"Engine: config must be an EngineConfig, got {type(config).__name__}")
        self.config = config if config is not None else EngineConfig()
        seed_everything(self.config.seed)
        self.problems = by_name(problems)
        self.graph = declared_graph(self.problems, dependencies, edges)
        self._environment = environment(env, self.config.seed)
        self.env = self._environment.env
        self.callbacks = Callbacks(callbacks)
        self.step_count = 0
        self.last_metrics: dict[str, dict[str, Tensor]] = {}
        self.last_validation: dict[str, Any] = {}
        self._bind(resolve_device(self.config.device))
        self._levels = {name: problem.level for name, problem in self.problems.items()}
        self.gradients = Gradients(self.graph, self._levels, total=self.config.response == "total")
        for level in self._levels.values():
            level.hierarchy = self.gradients.hierarchy
        self._schedule = Schedule(self.graph, self.problems)
        self._checked = dict.fromkeys(self.problems, 0)

    def run(self) -> None:
        """Train until ``train_iters`` engine steps are done, counting those taken before."""
        try:
            for problem in self.problems.values():
                if not problem.module.training:  # parts of a module in training may be frozen on purpose
                    problem.module.train()
            self.callbacks.on_run_start(self)
            while self.step_count < self.config.train_iters:
                self.step()
            self.callbacks.on_run_end(self)
        except BaseException as error:
            self.callbacks.on_exception(self, error)
            raise
        finally:
            self._environment.close()

    def step(self) -> None:
        """One engine step: every leaf takes one level step, then every upper that became ready."""
        for name in self.graph.order:
            if self._schedule.ready(name):
                self._advance(name)
        self.step_count += 1
        self.callbacks.on_step_end(self)
        every = self.config.valid_step
        if every and (self.step_count % every == 0 or self.step_count == self.config.train_iters):
            self.validate()

    def validation(self) -> Mapping[str, Any] | None:
        """Override to measure the current parameters; runs without gradients, every module in evaluation mode.

        Returns:
            Metrics by name; ``None`` (the default) where there is nothing to measure.
        """
        return None

    def validate(self) -> dict[str, Any]:
        """Run :meth:`validation` and tell the callbacks."""
        with evaluation_mode(problem.module for problem in self.problems.values()):
            metrics = self.validation()
        self.last_validation = dict(metrics) if metrics is not None else {}
        if self.last_validation:
            self.callbacks.on_validation(self, self.last_validation)
        return self.last_validation

    def report(self, run_dir: Path) -> dict[str, Any]:
        """Override to add to the report of a finished run: further metrics, pictures written into ``run_dir``.

        Returns:
            The run's final metrics; by default those of the last validation.
        """
        return self.last_validation

    def hypergradient(self, name: str) -> Tensors:
        """The total gradient of a problem's loss with respect to its trainable parameters.

        Taken at the current parameters and batches (those that come next, where none was drawn yet), through every
        problem below by its own method. Nothing changes: parameters, buffers, ``.grad``, optimizers, data position and
        random state stay as they are, bit for bit.

        Args:
            name: The problem.

        Returns:
            One tensor per trainable parameter.
        """
        return hypergradient(self[name].name, self._levels, self.gradients)

    def audit(self, name: str, methods: Sequence[str | Method] | None = None) -> Audit:
        """Compare the hypergradients of several methods with the truth, at the current point.

        The truth is a dense solve at every level of up to 1000 parameters and a Krylov solve run to convergence above
        that. The run is left untouched. Time, memory and counts are those of one hypergradient of each method.

        Args:
            name: The upper problem.
            methods: Names (audited with sensible options) or method objects; every registered method by default.

        Returns:
            Numbers per method and level, with ``to_text()``, ``to_json()`` and ``verdict()``.

        Raises:
            ConfigError: The problem has no lower that responds to it, or a method is unknown.
        """
        from .audit.measure import audit

        return audit(self, name, methods)

    def state_dict(self) -> dict[str, Any]:
        """The state of every problem, the counters and the readiness."""
        problems = {name: problem.state_dict() for name, problem in self.problems.items()}
        return {"problems": problems, "schedule": self._schedule.state_dict(), "step_count": self.step_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            ConfigError: The state is that of other problems.
        """
        if set(state["problems"]) != set(self.problems):
            raise ConfigError(
                f"load_state_dict: the state is that of problems {sorted(state['problems'])}, this engine has "
                f"{sorted(self.problems)}"
            )
        for name, problem in self.problems.items():
            problem.load_state_dict(state["problems"][name])
        self._schedule.load_state_dict(state["schedule"])
        self.step_count = state["step_count"]

    def __getitem__(self, name: str) -> Problem:
        if name not in self.problems:
            raise GraphError(f"no problem is named '{name}'{choices(str(name), self.problems, 'problems')}")
        return self.problems[name]

    def _bind(self, device: torch.device) -> None:
        for name, problem in self.problems.items():
            problem.env = self.env
            uppers, lowers = self.graph.uppers(name), self.graph.lowers(name)
            problem.bind(
                uppers=[self.problems[u] for u in uppers], lowers=[self.problems[v] for v in lowers], device=device
            )

    def _advance(self, name: str) -> None:
        """One level step of one problem."""
        problem, level = self.problems[name], self._levels[name]
        episodes = self._environment.episodes
        if self._schedule.starts_inner_loop(name):
            self._start_inner_loop(problem)
        moment = level.next_moment()
        record(self.gradients.hierarchy, self._levels, name, self.graph.uppers(name))
        metrics: dict[str, Tensor] = {}
        checks_finite = self._is_to_be_checked(name)

        def differentiate() -> tuple[Tensor, tuple[Tensor | None, ...]]:
            evaluation, shown = level.train(moment)
            metrics.update(shown)
            gradients = self.gradients.total(name, evaluation.loss)
            if checks_finite:
                self.gradients.check_finite(name, gradients, evaluation.loss)
            return evaluation.loss, gradients

        with ending_loops(self._levels, name, self.graph.constrained_by(name)):
            stepped = level.update.apply(*differentiate(), again=differentiate)
        problem.count += 1
        metrics.update(self._environment.metrics(name, episodes))
        self.last_metrics[name] = metrics
        self._schedule.advanced(name)
        if stepped:
            self._schedule.stepped(name)
        self.callbacks.on_level_step(self, problem, metrics)

    def _is_to_be_checked(self, name: str) -> bool:
        """Whether this is a problem's first level step since another ``log_step`` engine steps, or its last."""
        upcoming = self.step_count + 1
        before, self._checked[name] = self._checked[name], upcoming // self.config.log_step
        return before < self._checked[name] or upcoming == self.config.train_iters

    def _start_inner_loop(self, problem: Problem) -> None:
        problem.on_inner_loop_start()
        problem.level.start_inner_loop()
