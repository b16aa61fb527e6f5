"""Level steps as compiled programs (``EngineConfig(compile=True)``)."""

from .step import Compilation, CompiledStep
from .update import CompiledUpdate

__all__ = ["Compilation", "CompiledStep", "CompiledUpdate"]
