"""Programs in processes that are forked from one that has imported what takes seconds to.

Also that process: ``python forked.py`` reads one request a line.
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
from typing import NamedTuple


class Ended(NamedTuple):
    """How a program ended: its exit code, and what it wrote to its standard error."""

    code: int
    errors: str


class Forked:
    """Runs programs, each as ``python -c`` does in a new process."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, program: str, folder: Path) -> Ended:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps({"program": program, "folder": str(folder)}), file=self._server.stdin, flush=True)
        return Ended(*json.loads(self._server.stdout.readline()))


@contextmanager
def forking() -> Iterator[Forked]:
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Forked(server)


def _serve() -> None:
    # What takes long is torch, and a part of it that it imports late.
    import torch._dynamo  # noqa: F401

    import multilevel.engine.engine  # noqa: F401

    sys.path[0] = ""  # not this file's folder, whose names a program could take for its own
    answers = os.fdopen(os.dup(1), "w")  # what programs print is no answer
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as errors:
            if (child := os.fork()) == 0:
                os.dup2(errors.fileno(), 2)
                os.chdir(request["folder"])
                os._exit(_code(request["program"]))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            errors.seek(0)
            print(json.dumps([code, errors.read().decode()]), file=answers, flush=True)


def _code(program: str) -> int:
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve()
