"""One checkpoint file: whole or not there, and refused where anything about it is wrong."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from multilevel.engine.checkpoints import file as checkpoint_file
from multilevel.engine.checkpoints.file import read_checkpoint, write_checkpoint
from multilevel.hypergrad.errors import CheckpointError

from ...givens import assert_same

STATE = {"weights": torch.arange(1000.0), "counts": {"a": 3, "b": (1.5, None, "text")}, "flags": [True, False]}


def written(folder: Path) -> Path:
    path = folder / "deep" / "step-00000003.pt"
    write_checkpoint(path, STATE, 3)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert_same(read_checkpoint(written(tmp_path)), STATE)
    assert os.listdir(tmp_path / "deep") == ["step-00000003.pt"]


def test_torch_reads_it_too(tmp_path: Path) -> None:
    outer = torch.load(written(tmp_path), weights_only=True)
    assert (outer["format"], outer["version"], outer["step"]) == ("multilevel checkpoint", 1, 3)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match="is damaged, or no checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6, 0.8])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: float) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": torch.ones(2)}, "is no checkpoint of a run"),
        (torch.ones(2), "is no checkpoint of a run"),
        ({"format": "multilevel checkpoint", "version": 9}, "has format version 9, this release reads version 1"),
    ],
)
def test_another_file_of_torch_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "x.pt")


class Bomb:
    """Code in a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(BOMBED),)


BOMBED = Path("bombed")


def test_no_code_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"format": Bomb()}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"something else than tensors.*Bomb, at \['inner'\]"):
        write_checkpoint(tmp_path / "z.pt", {"inner": Bomb()}, 1)
    assert not (tmp_path / "z.pt").exists()
    monkeypatch.setattr(checkpoint_file, "_deserialized", lambda content: {})
    write_checkpoint(tmp_path / "z.pt", {"inner": Bomb()}, 1)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for name in ("x.pt", "y.pt", "z.pt"):
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / name)
    assert not BOMBED.exists()


@pytest.mark.parametrize("foreign", [lambda: 1, threading.Lock(), iter([1]), Path("x"), [Bomb()], {Bomb(): 1}])
def test_what_cannot_be_written_is_named_with_its_place(tmp_path: Path, foreign: Any) -> None:
    kind = type(foreign[0] if isinstance(foreign, list) else next(iter(foreign)) if type(foreign) is dict else foreign)
    state = {"big": torch.ones(3), "deep": [{"a": 1}, {"b": foreign}]}
    with pytest.raises(CheckpointError, match=rf"{kind.__qualname__}, at \['deep'\]\[1\]\['b'\]"):
        write_checkpoint(tmp_path / "x.pt", state, 1)
    assert not list(tmp_path.iterdir())


def test_a_state_that_holds_itself_is_no_endless_search(tmp_path: Path) -> None:
    state: dict[str, Any] = {"rule": lambda: 1}
    state = {"a": state, "b": [state]}
    state["b"].append(state)
    with pytest.raises(CheckpointError, match=r"at \['a'\]\['rule'\]"):
        write_checkpoint(tmp_path / "x.pt", state, 1)


def test_memory_that_does_not_suffice_is_an_oserror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(checkpoint_file, "_serialized", full)
    with pytest.raises(OSError, match="there is not enough memory"):
        write_checkpoint(tmp_path / "x.pt", STATE, 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: cannot be read"):
        read_checkpoint(tmp_path / "nowhere.pt")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, {"other": 1}, 3)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_is_an_oserror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened(Path("/dev/full"), *a, **k))
    with pytest.raises(OSError, match=r"No space left|write"):
        write_checkpoint(tmp_path / "x.pt", STATE, 1)
    assert not (tmp_path / "x.pt").exists()
