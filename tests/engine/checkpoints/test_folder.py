"""The checkpoints of a run: a few of the newest, and the newest good one is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from multilevel.engine.checkpoints.folder import CheckpointFolder
from multilevel.hypergrad.errors import CheckpointError, CheckpointWarning


def filled(path: Path, keep: int = 3, steps: tuple[int, ...] = (0, 10, 20, 30, 40)) -> CheckpointFolder:
    folder = CheckpointFolder(path, keep)
    for step in steps:
        folder.save(step, {"step": step})
    return folder


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    names = [path.name for path in filled(tmp_path, keep).files()]
    assert names == [f"step-{step:08d}.pt" for step in (40, 30, 20, 10, 0)[:keep]]


def test_the_newest_is_used(tmp_path: Path) -> None:
    found = filled(tmp_path).newest()
    assert found is not None
    assert (found[0].name, found[1]) == ("step-00000040.pt", {"step": 40})


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    (tmp_path / "step-00000040.pt").write_bytes(b"")
    (tmp_path / "step-00000030.pt").write_bytes(b"no checkpoint")
    with pytest.warns(CheckpointWarning, match="is damaged.*going on from step-00000020.pt instead") as caught:
        found = folder.newest()
    assert len(caught) == 2
    assert found is not None
    assert found[1] == {"step": 20}


def test_where_all_are_damaged_that_is_an_error(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    for path in folder.files():
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no checkpoint in it can be used:\n.*00040.*\n.*00030.*\n.*00020"):
        folder.newest()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "best-accuracy-0.9.pt").write_text("best")
    (tmp_path / "notes.txt").write_text("mine")
    filled(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-accuracy-0.9.pt", "notes.txt", "step-00000040.pt"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000003.pt.4242").write_bytes(b"half")
    filled(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000040.pt"]


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path, 3).newest() is None
    assert CheckpointFolder(tmp_path / "missing", 3).newest() is None
