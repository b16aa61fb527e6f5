"""Compare the library with loops written by hand and with other libraries, in one process.

python benchmarks/run.py                          everything, on the CPU
python benchmarks/run.py --workloads W1,W6 --quick
python benchmarks/run.py --device cuda --sizes large
python benchmarks/run.py --report                 the page and the picture again, from the results that are there
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import torch
from suite import machine, peers, report
from suite.case import HAND, OURS, Setting
from suite.imports import import_times
from suite.measure import measure
from suite.results import Results, RowResult, merged, read
from suite.workloads import LARGE, WORKLOADS

RESULTS = Path(__file__).parent / "results"
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""Keep what was freed, as the allocator of GPUs does. glibc hands it back and gets it again, page by page, depending on
what lies on top of the heap: up to 28 % of W3's time, for one implementation and not for another."""


def main() -> int:
    """Returns 1 where this library did not agree with a hand-written loop."""
    arguments = _arguments()
    if arguments.report:
        report.write(RESULTS)
        return 0
    with tempfile.TemporaryDirectory() as folder:  # what an earlier run compiled would be found again
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        return _measured(arguments)


def _measured(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    device, large = torch.device(arguments.device), arguments.sizes == "large"
    chosen = arguments.workloads or (LARGE if large else tuple(WORKLOADS))
    rounds, block = (arguments.rounds or 6, 0.05) if arguments.quick else (arguments.rounds or 30, 0.2)
    results = Results(machine.facts(device), rounds)
    path = RESULTS / machine.file_name(device, large)
    agreed = True
    for workload in chosen:
        setting = {"device": device, "large": large, "tiny": arguments.tiny}
        rows = WORKLOADS[workload](Setting(**setting))
        doubles = WORKLOADS[workload](Setting(**setting, dtype=torch.float64))
        for row, double in zip(rows, doubles, strict=True):
            result = measure(row, double, rounds=rounds, block=block, device=device)
            results.rows.append(result)
            _print(result)
            agreed &= result.runs[OURS].status == "timed"
        if not arguments.quick:
            _saved(results, path)
    if not arguments.quick:
        results.imports = import_times(7, tuple(peers.versions()))
        _saved(results, path)
        report.write(RESULTS)
    return 0 if agreed else 1


def _saved(results: Results, path: Path) -> None:
    old = read(path) if path.exists() else results
    merged(old, results, WORKLOADS).write(path)


def _print(result: RowResult) -> None:
    name = f"{result.workload} {result.method}"
    for implementation, run in result.runs.items():
        if run.status != "timed":
            print(f"{name:28} {implementation:22} {run.status}: {run.reason}", flush=True)
            continue
        low, high = run.quartiles or (float("nan"),) * 2
        share = "" if run.peak_bytes is None else f"{run.peak_bytes / 2**20:8.2f} MiB"
        of_hand = f"{run.ratio:6.3f} [{low:.3f}, {high:.3f}]" if implementation != HAND else ""
        print(f"{name:28} {implementation:22} {run.milliseconds:9.3f} ms  {of_hand:24} {share}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", type=_names, help="W1,W2,... (all)")
    parser.add_argument("--sizes", choices=("normal", "large"), default="normal", help="large fills a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, help="turns of each implementation (30)")
    parser.add_argument("--quick", action="store_true", help="few and short turns; prints, and writes nothing")
    parser.add_argument("--tiny", action="store_true", help="sizes of the tests")
    parser.add_argument("--report", action="store_true", help="only write the page and the picture")
    arguments = parser.parse_args()
    if arguments.tiny and not arguments.quick:
        parser.error("--tiny goes with --quick")
    return arguments


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    return names


if __name__ == "__main__":
    if not ALLOCATOR.keys() <= os.environ.keys():  # which is read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    sys.exit(main())
