"""What watches a run."""

from .base import Callback as Callback
from .base import Callbacks as Callbacks
