"""One checkpoint file: whole or not there, and checked before anything of it is used.

The file is what ``torch.save`` writes of ``{"format", "version", "step", "sha256", "state"}``, where ``state`` is the
bytes of the state itself, again as ``torch.save`` writes them. Both are read with ``weights_only=True``, so that no
code in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import torch

from ...hypergrad.errors import CheckpointError
from ..atomic import sync_folder
from .foreign import foreign

FORMAT, VERSION = "multilevel checkpoint", 1
KINDS: list[Any] = [Counter, OrderedDict, defaultdict, dict]
"""What the states of torch's own schedulers are made of, beside tensors, numbers, texts, lists and tuples."""


def write_checkpoint(path: Path, state: dict[str, Any], step: int) -> None:
    """Write a state so that, whenever the process or the machine stops, the file is there whole or not at all.

    Args:
        path: The file; its folder is made.
        state: Tensors, numbers, texts, and containers of them.
        step: The engine step, which can be read without the state.

    Raises:
        OSError: The file cannot be written, or memory does not suffice; nothing is left of it.
        CheckpointError: The state holds something that cannot be written, or could not be read again; nothing is
            written.
    """
    try:
        content = _serialized(state)
        _deserialized(content)  # a file that nobody can read must not push out one that somebody can
    except MemoryError as error:
        raise OSError(f"{path}: there is not enough memory to write it") from error
    except Exception as error:  # a pickler raises whatever the objects in the state do
        raise _refusal(path, foreign(state, _is_held) or _culprit(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    kept = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "step": step, "sha256": digest, "state": kept}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except RuntimeError as error:  # torch's writer stumbles over what the system refused, and reports its stumbling
        refused = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(f"{path}: {refused}") from error
    finally:
        beside.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it is no checkpoint of this library.
    """
    try:
        outer = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    except Exception as error:  # a cut zip archive, another pickle, a text: torch raises what it meets
        raise CheckpointError(f"{path}: is damaged, or no checkpoint ({_first_line(error)})") from error
    if not isinstance(outer, dict) or outer.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is no checkpoint of a run; expected a file that an Engine saved")
    if outer.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: has format version {outer.get('version')}, this release reads version {VERSION}; "
            "go on with the release that wrote it"
        )
    content = outer["state"].numpy().tobytes()
    if hashlib.sha256(content).hexdigest() != outer["sha256"]:
        raise CheckpointError(f"{path}: is damaged: its content does not match its checksum")
    try:
        return _deserialized(content)
    except Exception as error:
        raise _refusal(path, _culprit(error)) from error


def _serialized(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _deserialized(content: bytes) -> dict[str, Any]:
    with torch.serialization.safe_globals(KINDS):
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _is_held(value: Any) -> bool:
    """Whether a value can be written and read again."""
    try:
        _deserialized(_serialized(value))
    except Exception:
        return False
    return True


def _refusal(path: Path, culprit: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: holds something else than tensors, numbers, texts and containers of them: {culprit}"
    )


def _culprit(error: Exception) -> str:
    """What torch refused to read, out of its advice."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"a {named[1]}" if named else _first_line(error)


def _first_line(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\x1b\[[0-9;]*m", "", first)  # torch colours some of its errors
