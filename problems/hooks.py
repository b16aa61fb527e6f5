"""What a problem may override besides its training step; every hook does nothing until it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Hooks:
    """The optional parts of a problem: what it is built from, and what it wants to know of its training."""

    def configure_module(self) -> nn.Module | None:
        """The module, where the constructor was given none."""
        return None

    def configure_optimizer(self) -> Optimizer | None:
        """The optimizer, where the constructor was given none; ``self.module`` is there."""
        return None

    def configure_scheduler(self) -> LRScheduler | None:
        """The scheduler, where the constructor was given none; ``self.optimizer`` is there."""
        return None

    def configure_train_data_loader(self) -> Any:
        """The data loader, where the constructor was given none."""
        return None

    def configure_validation_data_loader(self) -> Any:
        """The data to validate on, where the constructor was given none."""
        return None

    def validation_step(self, batch: Any) -> Tensor | Mapping[str, Any] | None:
        """Metrics of one batch of the validation data, in evaluation mode and without gradients.

        Args:
            batch: What ``validation_data_loader`` gave, on the problem's device; ``None`` without one.

        Returns:
            Scalars by name (or a scalar tensor, called ``"loss"``). Their means over all batches, weighted by the
            batches' sizes, are the validation's metrics ``<problem>/<name>``. ``None`` (the default): there are none.
        """
        return None

    def initial_parameters(self) -> Sequence[Tensor] | None:
        """Where an inner loop starts; ``None`` (the default) goes on from the current parameters.

        Return one tensor per trainable parameter to start each inner loop there: a meta-learned initialisation, read
        from an upper. ``unroll`` carries the derivative with respect to the starting point into that upper.
        """
        return None

    def on_inner_loop_start(self) -> None:
        """Called before the first step, and again before each first step after the uppers were told of a solution.

        Where it is overridden, what ``unroll`` differentiates begins here too. Elsewhere it begins with the first step
        after an upper moved.
        """

    def grad_callback(self) -> None:
        """Called when ``.grad`` is complete (accumulated and clipped), before the optimizer steps."""

    def param_callback(self) -> None:
        """Called after the optimizer stepped: project or constrain the parameters here."""

    def epoch_callback(self) -> None:
        """Called whenever the data loader is exhausted."""

    def get_extra_state(self) -> Any:
        """What a checkpoint should keep besides: tensors, arrays, numbers, texts, and containers of them.

        Override it with :meth:`set_extra_state` where a problem has a memory of its own, such as a ``get_batch`` that
        plays episodes.
        """
        return None

    def set_extra_state(self, state: Any) -> None:
        """Take up what :meth:`get_extra_state` returned; called only where that was not ``None``."""

    @property
    def validates(self) -> bool:
        """Whether :meth:`validation_step` is overridden."""
        return self._overrides("validation_step")

    @property
    def edits_gradients(self) -> bool:
        """Whether :meth:`grad_callback` is overridden."""
        return self._overrides("grad_callback")

    @property
    def starts_inner_loops_itself(self) -> bool:
        """Whether :meth:`on_inner_loop_start` is overridden."""
        return self._overrides("on_inner_loop_start")

    def _overrides(self, hook: str) -> bool:
        """Whether its class does, or this object alone."""
        return getattr(getattr(self, hook), "__func__", None) is not getattr(Hooks, hook)
