"""Problem: one level of a hierarchy, what users subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..configs import Config
from ..hypergrad.errors import ConfigError
from ..hypergrad.linearization import Linearization
from ..hypergrad.method import Method
from ..hypergrad.tensors import Tensors
from .hooks import Hooks
from .level import ProblemLevel
from .neighbours import check_name, missing_attribute
from .packing import pack_or_warn, unpack
from .processes import mean_over_processes
from .sampling import Choice, sample


class Problem(Hooks, ABC):
    """One optimization problem: parameters, data, a loss, an optimizer, and neighbours above and below.

    Each part is a constructor argument, or comes from the ``configure_*`` method of the same name, called once when an
    engine (or :meth:`bind`) takes the problem up.

    A problem that shares an edge with this one is read by its name: ``self.reweight(...)`` calls the ``forward`` of
    the problem named ``"reweight"``. Read parameters through ``self.module`` or ``self.parameters``, so that other
    tensors can stand in for them while a hypergradient is computed. Once an engine has taken the problem up its parts
    stay; another engine takes up what is there then.

    Args:
        name: A Python identifier, unique in the engine.
        module: What holds the parameters.
        optimizer: Any ``torch.optim`` optimizer over the module's parameters; used as it is, with its parameter groups
            and state.
        scheduler: Any ``torch.optim.lr_scheduler`` over that optimizer, stepped after each of its steps. Optional.
        train_data_loader: Any iterable of batches; a tuple of iterables gives tuples of batches. Without one, the
            batch is ``None``.
        validation_data_loader: Any iterable of batches for ``validation_step``.
        config: Method, ``unroll_steps`` and the rest; ``Config()`` by default.

    Attributes:
        count: Batches trained on.
        device: Where the module and the batches are.

    Raises:
        ConfigError: The name is not an identifier or hides an attribute, or the config is not a :class:`Config`.
    """

    def __init__(
        self,
        name: str,
        *,
        module: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        scheduler: LRScheduler | None = None,
        train_data_loader: Any = None,
        validation_data_loader: Any = None,
        config: Config | None = None,
    ) -> None:
        check_name(name, type(self))
        if config is not None and not isinstance(config, Config):
            raise ConfigError(f"problem '{name}': config must be a Config, got {type(config).__name__}")
        self.name = name
        self.config = config if config is not None else Config()
        self.module: Any = module
        self.optimizer: Any = optimizer
        self.scheduler: Any = scheduler
        self.train_data_loader: Any = train_data_loader
        self.validation_data_loader: Any = validation_data_loader
        self.env: Any = None
        self.count = 0
        self._uppers: Mapping[str, Problem] = {}
        self._lowers: Mapping[str, Problem] = {}
        self._neighbours: Mapping[str, Problem] = {}
        self._level: ProblemLevel | None = None

    @abstractmethod
    def training_step(self, batch: Any) -> Tensor | Mapping[str, Any]:
        """The loss of one batch.

        Args:
            batch: What the data loader gave, on the problem's device; ``None`` for a problem without data.

        Returns:
            A scalar tensor, or a mapping with the scalar under ``"loss"`` and any metrics beside it.
        """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What ``self(...)``, and a neighbour's ``self.<name>(...)``, computes. Default: ``self.module(...)``."""
        return self.module(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def trainable_parameters(self) -> Sequence[Tensor]:
        """The tensors that this problem solves for.

        Default: the module's parameters that require a gradient and that the optimizer holds; :attr:`parameters` from
        when the problem is taken up.
        """
        if self._level is not None:
            return self.parameters
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return [p for p in self.module.parameters() if p.requires_grad and id(p) in held]

    def sample(self, distribution: Distribution, *, value: Tensor | None = None) -> Tensor:
        """Draw a choice inside ``training_step``, and remember how likely it was.

        No gradient flows through the choice itself; ``type="reinforce"`` on this problem, or ``estimator="score"``,
        differentiates the expectation over it.

        Args:
            distribution: Any ``torch.distributions`` object, batched or not.
            value: A choice that was made earlier (actions that an environment already took), drawn from this very
                distribution: remembered in place of a new one, in each of several draws.

        Returns:
            The sample, of the distribution's batch and event shape.
        """
        return sample(distribution, value)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What ``training_step`` samples on the current batch: distributions, values and log-probabilities, in order.

        Read from a neighbour's ``training_step`` (for an entropy bonus, say) it is evaluated then and there, at the
        tensors that stand in for the parameters, so that derivatives through the distributions are right at any depth.
        """
        return self.level.training_step.choices()

    def get_batch(self) -> Any:
        """The next batch, on the problem's device."""
        return self.level.batches.draw(self.device)

    @property
    def uppers(self) -> tuple[Problem, ...]:
        """The problems directly above."""
        return tuple(self._uppers.values())

    @property
    def lowers(self) -> tuple[Problem, ...]:
        """The problems directly below."""
        return tuple(self._lowers.values())

    @property
    def method(self) -> Method:
        """How this problem's best response is differentiated."""
        return self.config.method

    @property
    def parameters(self) -> Tensors:
        """The trainable parameters, in a fixed order; within a training step, the tensors that stand in for them."""
        return self.level.slots.tensors

    @property
    def device(self) -> torch.device:
        """The device of the first trainable parameter."""
        return self.level.device

    @property
    def reachable(self) -> dict[str, Problem]:
        """This problem and its neighbours by name: all whose parameters its loss may read."""
        return {self.name: self, **self._uppers, **self._lowers}

    @property
    def draws_its_own_batches(self) -> bool:
        """Whether :meth:`get_batch` is overridden."""
        return type(self).get_batch is not Problem.get_batch

    @property
    def level(self) -> ProblemLevel:
        """The problem as engine and methods see it.

        Raises:
            ConfigError: The problem is in no engine and was not bound.
        """
        if self._level is None:
            raise ConfigError(f"problem '{self.name}' is in no engine yet: pass it to Engine([...]), or call bind()")
        return self._level

    def bind(
        self,
        *,
        uppers: Sequence[Problem] = (),
        lowers: Sequence[Problem] = (),
        device: torch.device | None = None,
    ) -> Problem:
        """Assemble the problem and introduce its neighbours. An engine does it; call it to use a problem without one.

        Args:
            uppers: The problems directly above.
            lowers: The problems directly below.
            device: Where to move the module; ``None`` leaves it where it is.

        Raises:
            ConfigError: A part is missing or does not fit, or a neighbour's name hides an attribute.
        """
        self.meet(uppers, lowers)
        self._level = None
        self._level = ProblemLevel(self, device)
        return self

    def meet(self, uppers: Sequence[Problem], lowers: Sequence[Problem]) -> None:
        """Introduce the neighbours alone."""
        for neighbour in (*uppers, *lowers):
            check_name(neighbour.name, type(self), vars(self), reader=self.name)
        self._uppers, self._lowers = ({p.name: p for p in problems} for problems in (uppers, lowers))
        self._neighbours = {**self._uppers, **self._lowers}

    def linearize(self, uppers: Sequence[Problem]) -> Linearization:
        """This problem's objective around the current point, as a function of the parameters of ``uppers``.

        Raises:
            ConfigError: One of them is not among the problems that its best response depends on.
        """
        return self.level.linearize(uppers)

    def accumulate_mean_gradient(self, gradients: Tensors) -> None:
        """Average gradients over processes and add them to ``.grad``."""
        for parameter, gradient in zip(self.parameters, mean_over_processes(gradients), strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, the position in the data and :meth:`get_extra_state` included.

        Tensors, numbers, texts and containers of them. The random state is the engine's.
        """
        what = f"problem '{self.name}': what its get_extra_state() returned"
        return {**self.level.state_dict(), "extra": pack_or_warn(what, self.get_extra_state())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.level.load_state_dict(state)
        if state["extra"] is not None:
            self.set_extra_state(unpack(state["extra"]))

    def __getattr__(self, name: str) -> Any:
        # Only where normal lookup fails, and read-only: nothing is ever written on the object for a neighbour.
        neighbours = self.__dict__.get("_neighbours", {})
        if name in neighbours:
            return neighbours[name]
        raise AttributeError(missing_attribute(self, name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__.get('name')!r})"
