"""Level steps as compiled programs (``EngineConfig(compile=True)``)."""

from .step import Compilation, CompiledStep

__all__ = ["Compilation", "CompiledStep"]
