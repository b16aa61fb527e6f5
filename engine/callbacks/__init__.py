"""What watches a run."""

from .base import Callback as Callback
from .base import Callbacks as Callbacks


def configured(config):  # type: ignore[no-untyped-def]
    return []
