"""kill -9 at any moment: no checkpoint is lost or damaged, and the run goes on to the bits of one that never stopped.

The run has three levels: a recorded inner loop below (``unroll``), a warm-started solve above it (``cg``), accumulated
gradients, shuffled data, dropout, batch normalization, momentum and schedulers; with and without roll-back.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multilevel.engine.checkpoints.file import read_checkpoint
from multilevel.engine.checkpoints.folder import CheckpointFolder

from ..forked import Forked, forking
from . import killed_run
from .killed_run import EVERY, ITERS, STAGES
from .states import differences

KEEP = 2
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
Request = dict[str, Any]


class Soon:
    """Starts runs in forked processes."""

    def __init__(self, processes: Forked) -> None:
        self._processes = processes

    def start(self, request: Request) -> int:
        program = f"import sys, killed_run; sys.exit(killed_run.train({request!r}))"
        return self._processes.start(program, Path.cwd())

    def end(self) -> int:
        """Wait for the process that was started last; its exit code, or minus the signal that ended it."""
        code, errors = self._processes.end()
        print(errors)
        return code


class Fresh:
    """Starts runs in new processes, as ``python train.py`` does."""

    process: subprocess.Popen[bytes]

    def start(self, request: Request) -> int:
        self.process = subprocess.Popen([sys.executable, killed_run.__file__, json.dumps(request)], env=ENVIRONMENT)
        return self.process.pid

    def end(self) -> int:
        return self.process.wait(100)


class Run:
    """A run in a folder, killed and gone on with.

    Args:
        folder: The run's folder.
        processes: What starts them.
        roll_back: ``EngineConfig.roll_back``.
        keep: ``EngineConfig.keep``.
        iters: ``EngineConfig.train_iters``.
    """

    def __init__(
        self, folder: Path, processes: Soon | Fresh, *, roll_back: bool, keep: int = KEEP, iters: int = ITERS
    ) -> None:
        self.folder = folder
        self.checkpoints = CheckpointFolder(folder / "checkpoints", keep)
        self.attempts = 0
        self._processes = processes
        self.iters = iters
        self._settings = {"run_dir": str(folder), "roll_back": roll_back, "keep": keep, "iters": iters}

    @property
    def reported(self) -> int | None:
        """The last engine step that the last process said was over, its checkpoint included."""
        lines = self._lines()
        return int(lines[-1]) if lines else None

    def start(self, *, wait: int | None = None, stage: str | None = None, save: int = 0) -> int:
        self.attempts += 1
        how = {"log": str(self._log), "wait": wait, "stage": stage, "save": save}
        return self._processes.start({"run": self._settings, **how})

    def end(self) -> int:
        return self._processes.end()

    def wait_for_steps(self, count: int) -> None:
        """Wait until the last process has taken so many engine steps."""
        deadline = time.monotonic() + 40
        while len(self._lines()) < 1 + count:
            assert time.monotonic() < deadline, "it stands still"
            time.sleep(0.001)

    def newest(self) -> int | None:
        """The engine step of the newest checkpoint."""
        files = self.checkpoints.files()
        return int(files[0].stem.removeprefix("step-")) if files else None

    @property
    def _log(self) -> Path:
        return self.folder.parent / f"{self.folder.name}-{self.attempts}.log"

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


def saved(path: Path) -> dict[str, Any]:
    """What a checkpoint holds that does not depend on how fast it was."""
    state = read_checkpoint(path)
    del state["times"]
    return state


saved_of_whole = functools.cache(saved)
"""Likewise, of a run that was never stopped: many tests look at the same."""


@pytest.fixture(scope="module")
def forked() -> Iterator[Soon]:
    folder = str(Path(killed_run.__file__).parent)
    # Its first step imports what torch imports late.
    prepared = f"import sys; sys.path.append({folder!r}); import killed_run; killed_run.build(None).step()"
    with forking(prepared) as processes:
        yield Soon(processes)


@pytest.fixture(scope="module")
def whole(forked: Soon, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """The checkpoints of a run that was never stopped, by ``roll_back``."""
    made: dict[bool, Path] = {}

    def checkpoints(roll_back: bool) -> Path:
        if roll_back not in made:
            run = Run(tmp_path_factory.mktemp("whole") / "run", forked, roll_back=roll_back, keep=ITERS)
            run.start()
            assert run.end() == 0
            made[roll_back] = run.checkpoints.path
        return made[roll_back]

    return checkpoints


def assert_nothing_lost(run: Run, whole: Path) -> None:
    """Every checkpoint is that of the uninterrupted run, and the newest is as new as what was reported."""
    for path in run.checkpoints.files():
        assert differences(saved(path), saved_of_whole(whole / path.name)) == []
    if run.reported:
        newest = run.newest()
        assert newest is not None
        assert newest >= run.reported - run.reported % EVERY


def assert_ends_as(run: Run, whole: Path) -> None:
    run.start()
    assert run.end() == 0
    assert run.newest() == run.iters
    assert differences(saved(run.checkpoints.files()[0]), saved_of_whole(whole / f"step-{run.iters:08d}.pt")) == []
    assert len(os.listdir(run.checkpoints.path)) == KEEP, "something was left behind"


@pytest.mark.parametrize(
    ("times", "roll_back"),
    [(5, True), pytest.param(20, True, marks=pytest.mark.slow), pytest.param(20, False, marks=pytest.mark.slow)],
)
def test_killed_many_times_it_ends_the_same(
    forked: Soon, whole: Callable[[bool], Path], tmp_path: Path, times: int, roll_back: bool
) -> None:
    moments = random.Random(5)
    run = Run(tmp_path / "run", forked, roll_back=roll_back)
    for _ in range(times):
        process = run.start(wait=5)  # so that it cannot come to its end before the 20th
        run.wait_for_steps(moments.randrange(5))
        time.sleep(moments.uniform(0, 0.03))
        os.kill(process, signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
        assert_nothing_lost(run, whole(roll_back))
    assert_ends_as(run, whole(roll_back))


@pytest.mark.parametrize(
    ("stage", "save"),
    [
        *[(stage, 4) for stage in STAGES],
        *[pytest.param(stage, 1, marks=pytest.mark.slow if stage != "half-way" else ()) for stage in STAGES[:-1]],
    ],
)
def test_killed_while_it_writes_a_checkpoint_it_has_the_one_before_or_the_new_one(
    forked: Soon, whole: Callable[[bool], Path], tmp_path: Path, stage: str, save: int
) -> None:
    run = Run(tmp_path / "run", forked, roll_back=False, iters=8 * EVERY)
    run.start(stage=stage, save=save)
    assert run.end() == -signal.SIGKILL
    assert_nothing_lost(run, whole(False))
    last = (save - 1) * EVERY
    before = last - EVERY if save > 1 else None
    assert run.newest() == (last if stage.startswith("when") else before)
    run.start(stage="half-way", save=save)
    assert run.end() == -signal.SIGKILL
    assert_nothing_lost(run, whole(False))
    assert_ends_as(run, whole(False))


@pytest.mark.slow
def test_new_processes_go_on_too(whole: Callable[[bool], Path], tmp_path: Path) -> None:
    moments = random.Random(1)
    run = Run(tmp_path / "run", Fresh(), roll_back=False)
    process = run.start(wait=8)
    run.wait_for_steps(moments.randrange(8))
    time.sleep(moments.uniform(0, 0.03))
    os.kill(process, signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert_nothing_lost(run, whole(False))
    assert_ends_as(run, whole(False))


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGINT, 130)]
)
def test_told_to_stop_at_any_moment_it_loses_nothing(
    forked: Soon, whole: Callable[[bool], Path], tmp_path: Path, number: int, code: int
) -> None:
    moments = random.Random(number)
    run = Run(tmp_path / "run", forked, roll_back=True)
    for _ in range(6):
        process = run.start()
        run.wait_for_steps(1 + moments.randrange(5))
        time.sleep(moments.uniform(0, 0.02))
        os.kill(process, number)
        assert run.end() == code
        assert run.reported is not None
        newest = run.newest()
        assert newest is not None
        assert newest >= run.reported
    assert_ends_as(run, whole(True))
