"""How long imports and the command line take, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import median

PROGRAMS: Mapping[str, Sequence[str]] = {
    "python": ("-c", "pass"),
    "import torch": ("-c", "import torch"),
    "import multilevel": ("-c", "import multilevel"),
    "from multilevel import Config, Engine, Problem": ("-c", "from multilevel import Config, Engine, Problem"),
    "multilevel --help": ("-m", "multilevel", "--help"),
}
PEERS = {"betty-ml": "betty.engine", "torchopt": "torchopt", "higher": "higher", "boat-torch": "boat_torch"}


def import_times(repeats: int, peers: Sequence[str] = ()) -> dict[str, float]:
    """Median seconds of each program; they take turns.

    Args:
        repeats: How often each runs, after once for the file cache.
        peers: Names of other libraries whose import is timed as well.
    """
    programs = dict(PROGRAMS) | {f"import {PEERS[p]}": ("-c", f"import {PEERS[p]}") for p in peers if p in PEERS}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    # From an empty folder: this repository has folders that are called like packages.
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            for name, program in programs.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *program], cwd=folder, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in seconds.items()}
