"""The engine: steps every level of a hierarchy, lowest first, and differentiates each through the levels below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import Self

from ..configs import EngineConfig
from ..hypergrad.errors import ConfigError, GraphError, choices
from ..hypergrad.method import Method
from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors
from ..problems.problem import Problem
from .audit.report import Audit
from .averaging import warn_of_processes
from .callbacks import Callback, Callbacks, configured
from .checkpoints.keeper import Checkpoints
from .checkpoints.run_state import load_run_state, run_state
from .declare import Dependencies, Name, by_name, declared_graph, refuse_shared
from .device import resolve_device
from .environment import environment
from .gradients import Gradients
from .inspection import hypergradient
from .interruption import Interrupted, Interruption
from .loggers import build_loggers
from .modes import evaluation_mode
from .seeding import seed_everything
from .stepper import Stepper
from .suitability import check_methods
from .times import Times
from .underway import Part, Underway
from .validation import own_metrics, validate_problems

if TYPE_CHECKING:
    from .compiled import Compilation


class Engine:
    """Runs a hierarchy of problems.

    Args:
        problems: The problems, in any order.
        dependencies: ``{"u2l": {upper: [lowers]}, "l2u": {lower: [uppers]}}``, of problems or their names: whose
            parameters enter a lower's loss, and whose solution enters an upper's.
        edges: ``[(upper, lower), ...]``, the short form: both directions of each pair.
        config: Length of the run, device, response; ``EngineConfig()`` by default.
        env: Any object, which every problem then finds as ``self.env``. A gymnasium environment, single or vector, is
            seeded from ``config.seed`` and closed by :meth:`close`, and the episodes that end in it are among the
            metrics of the problem that steps it. Step it in ``get_batch``, not in ``training_step``, which is evaluated
            as often as a method needs.
        callbacks: What watches the run, in order; one of them alone needs no list.

    Attributes:
        problems: The problems by name.
        graph: The hierarchy; ``graph.networkx`` is a :class:`networkx.DiGraph`.
        gradients: Differentiates through the hierarchy.
        environment: What is done with ``env`` around the problems.
        device: Where the run computes.
        run_dir: Where it writes, if anywhere.
        step_count: Engine steps taken.
        should_stop: Set it to end the run after the current engine step.
        last_metrics: Per problem, what its last level step returned: detached tensors, the loss among them.
        last_validation: What the last validation returned.
        built_from: The text of the experiment that it was built from, which its checkpoints keep; ``None`` in Python.
        underway: The parts of a run that have begun and not ended.

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
        callbacks: Callback | Iterable[Callback] = (),
    ) -> None:
        if config is not None and not isinstance(config, EngineConfig):
            raise ConfigError(f"Engine: config must be an EngineConfig, got {type(config).__name__}")
        self.config = config if config is not None else EngineConfig()
        seed_everything(self.config.seed)
        self.device = resolve_device(self.config.device)
        self.run_dir = Path(self.config.run_dir) if self.config.run_dir is not None else None
        self.problems = by_name(problems)
        self.graph = declared_graph(self.problems, dependencies, edges)
        self.environment = environment(env, self.config.seed)
        self.env = self.environment.env
        self.step_count = 0
        self.should_stop = False
        self.last_metrics: dict[str, dict[str, Tensor]] = {}
        self.last_validation: dict[str, Any] = {}
        self.built_from: str | None = None
        self._bind()
        warn_of_processes(self.problems.values())
        self.gradients = Gradients(self.graph, self._levels, total=self.config.response == "total")
        check_methods(self.problems, self.gradients.relations.inside, self.config.response)
        for level in self._levels.values():
            level.hierarchy = self.gradients.hierarchy
        self._stepper = Stepper(self)
        self._next = 0
        self.underway = Underway()
        self._interruption = Interruption()
        self._checkpoints = Checkpoints(self.run_dir, self.config.checkpoint_every, self.config.keep)
        loggers = build_loggers(self.config.loggers, self.run_dir)
        self.callbacks = Callbacks(configured(self.config, callbacks, loggers))

    @property
    def times(self) -> dict[str, Times]:
        """Where the time of each problem's level steps went."""
        return self._stepper.times

    @property
    def compilations(self) -> Mapping[str, Compilation]:
        """Which problems' level steps are compiled, and why others are not (``EngineConfig(compile=True)``)."""
        return self._stepper.compilations

    @property
    def done(self) -> bool:
        """Whether the run is over: ``train_iters`` engine steps are taken, or something set ``should_stop``."""
        return self._next == 0 and (self.should_stop or self.step_count >= self.config.train_iters)

    def run(self) -> None:
        """Train until ``train_iters`` engine steps are done, counting those taken before.

        Ctrl-C and SIGTERM let the level step that is running finish; where there is a ``run_dir``, the run is saved
        then.

        Raises:
            Interrupted: By one of these signals. It is a ``KeyboardInterrupt``.
            ProblemError: A callback or a problem called it in the middle of a run.
        """
        self.underway.refuse_training("engine.run()", Part.STEP, Part.RUN)
        try:
            for problem in self.problems.values():
                if not problem.module.training:  # parts of a module in training may be frozen on purpose
                    problem.module.train()
            with self._interruption, self.underway.run:
                self._run_or_save()
        except BaseException as error:
            self.callbacks.on_exception(self, error)
            raise

    def close(self) -> None:
        """Close the environment, where there is one. An engine is a context manager that does so at the end."""
        self.environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run_or_save(self) -> None:
        try:
            self._run()
        except Interrupted:  # signals are still noted only: a second one must not end the process while it saves
            self._checkpoints.save(self, then="the run ends here")
            raise

    def _run(self) -> None:
        self._checkpoints.begin(self)
        self.callbacks.on_run_start(self)
        if self.config.validate_first and self.step_count == self._next == 0:
            self.validate()
        while not self.done:
            self.step()
            self._interruption.check()
        self.callbacks.on_run_end(self)

    def step(self) -> None:
        """One engine step: every leaf takes one level step, then every upper that became ready.

        One that was interrupted goes on after the last level step that was taken. Callbacks hear of the start and the
        end of a run from :meth:`run` only: loggers write nothing where steps are taken one by one.

        Raises:
            ProblemError: A callback or a problem called it in the middle of an engine step.
        """
        self.underway.refuse_training("engine.step()", Part.STEP)
        with self.underway.step:
            self._step()

    def _step(self) -> None:
        order = self.graph.order
        while self._next < len(order):
            with self.underway.level_step:
                advanced = self._stepper.advance(order[self._next])
            self._next += 1
            if advanced:
                self._interruption.check()
        self._next = 0
        self.step_count += 1
        self.callbacks.on_step_end(self)
        every = self.config.valid_step
        if every and (self.step_count % every == 0 or self.step_count == self.config.train_iters):
            self.validate()
        self._checkpoints.after_step(self, last=self.done)

    def validation(self) -> Mapping[str, Any] | None:
        """Override to measure the current parameters; runs without gradients, every module in evaluation mode.

        Returns:
            Metrics by name; ``None`` (the default) where there is nothing to measure.
        """
        return None

    def validate(self) -> dict[str, Any]:
        """Validate now: :meth:`validation` and every problem's ``validation_step``; then tell who watches it.

        Random numbers are put back, so that a run trains the same whether it is validated or not.

        Raises:
            ProblemError: One of them returned something that is no metric.
        """
        random = RandomState(self.device, host=True)
        try:
            with evaluation_mode(problem.module for problem in self.problems.values()):
                metrics = validate_problems(self.problems.values())
                metrics |= own_metrics(type(self).__name__, self.validation())
        finally:
            random.restore()
        self.last_validation = metrics
        if metrics:
            for level in self._levels.values():
                level.update.scheduling.after_validation(metrics)
            self.callbacks.on_validation(self, metrics)
        return metrics

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

    def audit(self, name: str, methods: str | Method | Sequence[str | Method] | None = None) -> Audit:
        """Compare the hypergradients of several methods with the truth, at the current point.

        The truth is the derivative of the solutions: a dense solve at every level of up to 1000 parameters and a Krylov
        solve run to convergence above that. A run that goes through the steps of a level (``unroll``) is compared with
        the derivative of all of them besides, and judged by that. The run is left untouched. Time, memory and counts
        are those of one hypergradient of each method.

        Args:
            name: The upper problem.
            methods: Names (audited with sensible options) or method objects, one or several; every registered one by
                default.

        Returns:
            Numbers per method and level, with ``to_text()``, ``to_json()`` and ``verdict()``.

        Raises:
            ConfigError: The problem has no lower that responds to it, or a method is unknown.
            ProblemError: A level below needs second derivatives of an operation that torch has none for.
        """
        from .audit.measure import audit

        return audit(self, name, methods)

    def get_extra_state(self) -> Any:
        """Override to let checkpoints keep more: tensors, arrays, numbers, texts, and containers of them."""
        return None

    def set_extra_state(self, state: Any) -> None:
        """Take up what :meth:`get_extra_state` returned; called only where that was not ``None``."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that it takes to go on with the run, to the same bits.

        Of every problem: parameters, buffers, optimizer, scheduler, scaler, accumulated gradients, counters, the
        method's memory, the position in the data, the current batch and the recorded inner loop. Besides: readiness,
        the random state of torch, numpy and Python, metrics, callbacks, loggers and the environment.
        """
        return run_state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned.

        Raises:
            ConfigError: The state is that of other problems.
            CheckpointError: It does not fit one of them.
        """
        load_run_state(self, state)

    def save_checkpoint(self) -> Path | None:
        """Save the run into ``run_dir``; ``None`` where there is none, or where it could not be written (it warns).

        Raises:
            ProblemError: It was called in the middle of a level step: in a callback's ``on_gradients`` or
                ``on_level_step``, or in a problem's own code.
        """
        self.underway.refuse_checkpoint(
            "engine.save_checkpoint()", "a run that goes on from there would take that step again, on another batch"
        )
        return self._checkpoints.save(self)

    def resume(self, amend: Callable[[dict[str, Any]], object] | None = None) -> int | None:
        """Go on from the newest good checkpoint in ``run_dir``: load it, and return its engine step.

        The options of optimizers and schedulers are those of the checkpoint, as torch has it; set others afterwards.

        Args:
            amend: Is given the state before it is loaded; it may change it in place, or refuse it.

        Returns:
            ``None`` where there is no checkpoint.

        Raises:
            ConfigError: There is no ``run_dir``, or the checkpoint is that of other problems.
            CheckpointError: There are checkpoints, and none can be used.
            ProblemError: It was called in the middle of a level step.
        """
        self.underway.refuse_checkpoint("engine.resume()", "the rest of that step would change what is loaded")
        return self._checkpoints.resume(self, amend)

    def progress_state(self) -> dict[str, Any]:
        """How far the run is."""
        return {
            "step_count": self.step_count,
            "next": self._next,
            "should_stop": self.should_stop,
            **self._stepper.state_dict(),
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`progress_state` returned."""
        self.step_count, self._next, self.should_stop = state["step_count"], state["next"], state["should_stop"]
        self._stepper.load_state_dict(state)

    def __getitem__(self, name: str) -> Problem:
        if name not in self.problems:
            raise GraphError(f"no problem is named '{name}'{choices(str(name), self.problems, 'problems')}")
        return self.problems[name]

    def _bind(self) -> None:
        for name, problem in self.problems.items():
            problem.env = self.env
            uppers, lowers = self.graph.uppers(name), self.graph.lowers(name)
            problem.bind(
                uppers=[self.problems[u] for u in uppers], lowers=[self.problems[v] for v in lowers], device=self.device
            )
        self._levels = {name: problem.level for name, problem in self.problems.items()}
        refuse_shared(self._levels)
        for level in self._levels.values():
            level.update.scheduling.refuse_unfed(self.config.valid_step)
