"""Everything that it takes to go on with a run, as data, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...hypergrad.errors import CheckpointError, ConfigError, MultilevelError
from ...hypergrad.replay import RandomState
from ...problems.packing import pack_or_warn, unpack, unpack_or_warn
from ..times import Times

if TYPE_CHECKING:
    from ..engine import Engine


def run_state(engine: Engine) -> dict[str, Any]:
    """The state of every problem and of all that is around them; tensors are the live ones."""
    return {
        "problems": {name: problem.state_dict() for name, problem in engine.problems.items()},
        "progress": engine.progress_state(),
        "last_metrics": {n: engine.callbacks.packed_metrics(n, shown) for n, shown in engine.last_metrics.items()},
        "last_validation": pack_or_warn("what the validation returned", engine.last_validation),
        "callbacks": engine.callbacks.state_dict(),
        "environment": engine.environment.state_dict(),
        "extra": pack_or_warn("what get_extra_state() of the engine returned", engine.get_extra_state()),
        "times": {name: times.state_dict() for name, times in engine.times.items()},
        "random": RandomState(engine.device, host=True).state_dict(),
        "built_from": engine.built_from,
    }


def load_run_state(engine: Engine, state: Mapping[str, Any]) -> None:
    """Take up what :func:`run_state` returned, in an engine with the same problems.

    Raises:
        ConfigError: The state is that of other problems, or of no engine.
        CheckpointError: It does not fit one of them.
    """
    if "problems" not in state:
        raise ConfigError(f"load_state_dict: expected what Engine.state_dict() returned, got a state of {list(state)}")
    if set(state["problems"]) != set(engine.problems):
        raise ConfigError(
            f"load_state_dict: the state is that of problems {sorted(state['problems'])}, this engine has "
            f"{sorted(engine.problems)}"
        )
    for name, problem in engine.problems.items():
        try:
            problem.load_state_dict(state["problems"][name])
        except MultilevelError:
            raise
        except Exception as error:  # whatever a module or an optimizer says of a state that is not its own
            raise CheckpointError(
                f"problem '{name}': the checkpoint does not fit it: {str(error).rstrip('.')}. Was it built in another "
                "way than the run that is gone on with?"
            ) from error
    engine.load_progress_state(state["progress"])
    engine.last_metrics = {
        name: dict(unpack_or_warn(f"what is shown of problem '{name}'", metrics) or {})
        for name, metrics in state["last_metrics"].items()
    }
    engine.last_validation = unpack_or_warn("what the validation returned", state["last_validation"]) or {}
    engine.callbacks.load_state_dict(state["callbacks"])
    engine.environment.load_state_dict(state["environment"])
    engine.times.update({name: Times(**kept) for name, kept in state["times"].items()})
    if state["extra"] is not None:
        engine.set_extra_state(unpack(state["extra"]))
    RandomState.from_state_dict(state["random"], engine.device).restore()


def training_states(state: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Every place in what :func:`run_state` returned that a problem may go on from: where it is, and where it was."""
    yield state["problems"][name]["training"]
    progress = state["progress"]
    if progress["guard"]["good"] is not None:
        yield progress["guard"]["good"]["states"][name]
    yield from _places(progress["roll_back"] or {}, name)


def _places(pasts: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    for past in pasts.values():
        if name in past["places"]:
            yield past["places"][name]["training"]
        yield from _places(past["inner"], name)
