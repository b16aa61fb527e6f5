"""Multilevel optimization in PyTorch: nested problems of any depth, with hypergradients that are right.

The public names are loaded when first used, so that ``multilevel --help`` need not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .configs import Config as Config
    from .configs import EngineConfig as EngineConfig
    from .engine.callbacks import Callback as Callback
    from .engine.callbacks import EarlyStopping as EarlyStopping
    from .engine.callbacks import KeepBest as KeepBest
    from .engine.callbacks import Monitor as Monitor
    from .engine.engine import Engine as Engine
    from .engine.interruption import Interrupted as Interrupted
    from .hypergrad.cg import CG as CG
    from .hypergrad.darts import Darts as Darts
    from .hypergrad.errors import CheckpointError as CheckpointError
    from .hypergrad.errors import CheckpointWarning as CheckpointWarning
    from .hypergrad.errors import ConfigError as ConfigError
    from .hypergrad.errors import GraphError as GraphError
    from .hypergrad.errors import LoggerWarning as LoggerWarning
    from .hypergrad.errors import MultilevelError as MultilevelError
    from .hypergrad.errors import NonFiniteError as NonFiniteError
    from .hypergrad.errors import NumericsWarning as NumericsWarning
    from .hypergrad.errors import ProblemError as ProblemError
    from .hypergrad.exact import Exact as Exact
    from .hypergrad.gmres import GMRES as GMRES
    from .hypergrad.identity import Identity as Identity
    from .hypergrad.method import ImplicitMethod as ImplicitMethod
    from .hypergrad.method import Method as Method
    from .hypergrad.minres import MINRES as MINRES
    from .hypergrad.neumann import Neumann as Neumann
    from .hypergrad.nystrom import Nystrom as Nystrom
    from .hypergrad.registry import register as register
    from .hypergrad.reinforce import Reinforce as Reinforce
    from .hypergrad.response import best_response as best_response
    from .hypergrad.sama import Sama as Sama
    from .hypergrad.unroll import Unroll as Unroll
    from .problems.problem import Problem as Problem

_HOME = {
    "Config": "configs",
    "EngineConfig": "configs",
    "Callback": "engine.callbacks",
    "EarlyStopping": "engine.callbacks",
    "KeepBest": "engine.callbacks",
    "Monitor": "engine.callbacks",
    "Engine": "engine.engine",
    "Interrupted": "engine.interruption",
    "CG": "hypergrad.cg",
    "Darts": "hypergrad.darts",
    "CheckpointError": "hypergrad.errors",
    "CheckpointWarning": "hypergrad.errors",
    "ConfigError": "hypergrad.errors",
    "GraphError": "hypergrad.errors",
    "LoggerWarning": "hypergrad.errors",
    "MultilevelError": "hypergrad.errors",
    "NonFiniteError": "hypergrad.errors",
    "NumericsWarning": "hypergrad.errors",
    "ProblemError": "hypergrad.errors",
    "Exact": "hypergrad.exact",
    "GMRES": "hypergrad.gmres",
    "Identity": "hypergrad.identity",
    "ImplicitMethod": "hypergrad.method",
    "Method": "hypergrad.method",
    "MINRES": "hypergrad.minres",
    "Neumann": "hypergrad.neumann",
    "Nystrom": "hypergrad.nystrom",
    "register": "hypergrad.registry",
    "Reinforce": "hypergrad.reinforce",
    "best_response": "hypergrad.response",
    "Sama": "hypergrad.sama",
    "Unroll": "hypergrad.unroll",
    "Problem": "problems.problem",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'multilevel' has no attribute '{name}'")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
