"""Programs in processes that are forked from one that has imported what takes seconds to.

Also that process: ``python forked.py PREPARATION`` runs a program and then reads one request a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a program ended: its exit code, or minus the signal that ended it, and what it wrote to standard error."""

    code: int
    errors: str


class Forked:
    """Runs programs one after another, each as ``python -c`` does in a new process."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def start(self, program: str, folder: Path) -> int:
        """Start a program in a folder; the number of its process."""
        assert self._server.stdin is not None
        print(json.dumps({"program": program, "folder": str(folder)}), file=self._server.stdin, flush=True)
        number: int = self._answer()
        return number

    def end(self) -> Ended:
        """Wait for the program that was started last."""
        return Ended(*self._answer())

    def run(self, program: str, folder: Path) -> Ended:
        """Start a program and wait for it."""
        self.start(program, folder)
        return self.end()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())


@contextmanager
def forking(preparation: str) -> Iterator[Forked]:
    """Processes forked from one that ran a program: what that imported costs nothing, and its names are not theirs."""
    command = [sys.executable, __file__, preparation]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        try:
            yield Forked(server)
        finally:
            server.kill()  # it may wait for a program that waits for ever


def _serve(preparation: str) -> None:
    sys.path[0] = ""  # not this file's folder, whose names a program could take for its own
    answers = os.fdopen(os.dup(1), "w")  # what programs print is no answer
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    exec(preparation, {"__name__": "preparation"})
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as errors:
            if (child := os.fork()) == 0:
                os.dup2(errors.fileno(), 2)
                os.chdir(request["folder"])
                os._exit(_code(request["program"]))
            print(child, file=answers, flush=True)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            errors.seek(0)
            print(json.dumps([code, errors.read().decode()]), file=answers, flush=True)


def _code(program: str) -> int:
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
