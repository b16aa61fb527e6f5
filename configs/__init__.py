"""What a run is, as data: the settings of a problem and of an engine, and experiment files."""

from .config import Config as Config
from .engine_config import EngineConfig as EngineConfig
