"""Level steps as compiled programs (``EngineConfig(compile=True)``)."""

from .step import Compilation, CompiledStep
from .update import CompiledUpdate
from .worth import Pace

__all__ = ["Compilation", "CompiledStep", "CompiledUpdate", "Pace"]
