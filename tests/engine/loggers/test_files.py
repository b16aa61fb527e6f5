"""Files of metrics: exact over kills and resumes, readable after a full disk."""

from __future__ import annotations

import csv
import errno
import os
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch

from multilevel import LoggerWarning
from multilevel.engine.loggers import text_file
from multilevel.engine.loggers.csv import COLUMNS, Csv
from multilevel.engine.loggers.jsonl import JsonLines
from multilevel.hypergrad.errors import ConfigError

from .fakes import checkpoint, fake_engine, kill, killed_and_resumed, records, restore, run, steps


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(path: Path) -> list[dict[str, Any]]:
    """What a file says, apart from when."""
    found: list[Any] = records(path) if path.suffix == ".jsonl" else rows(path)
    return [{key: value for key, value in record.items() if key != "seconds"} for record in found]


def engine() -> Any:
    return fake_engine(lower=-1, upper=7)


FILES = pytest.mark.parametrize(("kind", "name"), [(JsonLines, "m.jsonl"), (Csv, "m.csv")], ids=["jsonl", "csv"])


def test_json_lines(tmp_path):
    run(fake_engine(lower=-1), JsonLines(tmp_path / "m.jsonl"), until=10)
    written = records(tmp_path / "m.jsonl")
    assert [list(record) for record in written] == [
        ["step", "seconds", "validation"],
        ["step", "seconds", "problem", "count", "metrics"],
        ["step", "seconds", "validation"],
    ]
    assert written[1] == {**written[1], "step": 10, "problem": "lower", "count": 10, "metrics": {"loss": 2.5}}
    assert written[2]["validation"] == {"accuracy": 10 / 32}


def test_json_lines_hold_any_metric(tmp_path):
    logger = JsonLines(tmp_path / "m.jsonl")
    logger.on_run_start(engine())
    logger.on_validation(engine(), {"per_class": torch.tensor([1.0, float("inf")]), "kind": "test"})
    logger.on_exception(engine(), RuntimeError())
    assert records(tmp_path / "m.jsonl")[0]["validation"] == {"per_class": [1.0, "inf"], "kind": "test"}


def test_csv_is_one_row_a_number_under_columns_that_never_change(tmp_path):
    logger = Csv(tmp_path / "m.csv")
    logger.on_run_start(engine())
    logger.on_validation(engine(), {"a, b": torch.tensor([0.5]), "list": torch.ones(3), "inf": float("inf")})
    problem = engine().problems["upper"]
    problem.count = 7
    logger.on_level_step(engine(), problem, {"loss": torch.tensor(2.0), "further": torch.tensor(0.1)})
    logger.on_run_end(engine())
    written = rows(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [tuple(row[c] for c in ("step", "problem", "count", "metric", "value")) for row in written] == [
        ("0", "validation", "", "a, b", "0.5"),
        ("0", "validation", "", "inf", "inf"),
        ("1", "upper", "7", "loss", "2.0"),
        ("1", "upper", "7", "further", "0.1"),
    ]


@FILES
@pytest.mark.parametrize(("saved", "killed"), [(0, 3), (4, 23), (7, 7), (10, 14), (13, 15), (20, 24)])
def test_a_killed_and_resumed_run_leaves_the_lines_of_an_uninterrupted_one(tmp_path, kind, name, saved, killed):
    whole, parts = tmp_path / "whole" / name, tmp_path / "parts" / name
    run(engine(), kind(whole))
    killed_and_resumed(lambda: kind(parts), engine, saved, killed)
    assert timeless(parts) == timeless(whole)


@FILES
def test_so_does_one_that_was_killed_in_the_middle_of_a_line_and_resumed_twice(tmp_path, kind, name):
    whole, path = tmp_path / "whole" / name, tmp_path / name
    run(engine(), kind(whole))
    first, before = kind(path), engine()
    first.on_run_start(before)
    steps(before, [first], 6)
    state = checkpoint(before, first)
    kill(first)
    for killed in (20, 12):
        logger, running = kind(path), engine()
        restore(running, logger, state)
        logger.on_run_start(running)
        steps(running, [logger], killed)
        kill(logger)
        with path.open("a") as file:
            file.write('20,"{half a li')
    logger, running = kind(path), engine()
    restore(running, logger, state)
    run(running, logger)
    assert timeless(path) == timeless(whole)


@FILES
def test_a_run_that_was_extended_leaves_the_lines_of_a_longer_one(tmp_path, kind, name):
    """What is written only because it is the end is taken back when it was not."""
    whole, path = tmp_path / "whole" / name, tmp_path / name
    run(engine(), kind(whole), until=40)
    first, before = kind(path), engine()
    first.on_run_start(before)
    steps(before, [first], 25)
    state = checkpoint(before, first)
    first.on_run_end(before)
    again, after = kind(path), engine()
    restore(after, again, state)
    run(after, again, until=40)
    assert timeless(path) == timeless(whole)


@FILES
def test_without_a_checkpoint_a_run_is_added_to_what_is_there_after_half_a_line(tmp_path, kind, name):
    path = tmp_path / name
    run(engine(), kind(path), until=10)
    once = len(path.read_text().splitlines())
    with path.open("a") as file:
        file.write('10,"{half a li'.replace('"', ""))
    run(engine(), kind(path), until=10)
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * once + (1 if kind is JsonLines else 0)  # the half line, and the header only once
    assert sum("half" in line for line in lines) == 1


@FILES
def test_lines_that_were_there_before_the_first_checkpoint_stay(tmp_path, kind, name):
    path, alone = tmp_path / name, tmp_path / "alone" / name
    for file in (path, alone):
        run(fake_engine(other=1), kind(file), until=3)
    run(engine(), kind(alone))
    killed_and_resumed(lambda: kind(path), engine, 0, 12)
    assert timeless(path) == timeless(alone)


@FILES
def test_the_file_of_another_run_is_not_cut(tmp_path, kind, name):
    first, before = kind(tmp_path / "a" / name), engine()
    first.on_run_start(before)
    steps(before, [first], 10)
    state = checkpoint(before, first)
    first.on_run_end(before)
    other = tmp_path / "b" / name
    run(fake_engine(other=1), kind(other))
    text = other.read_text()
    again, after = kind(other), engine()
    restore(after, again, state)
    run(after, again)
    assert other.read_text().startswith(text)


@FILES
def test_a_run_whose_file_went_missing_can_be_saved_and_resumed_again(tmp_path, kind, name):
    path = tmp_path / name
    state = None
    for _ in range(3):
        logger, running = kind(path), engine()
        if state is not None:
            path.unlink()
            restore(running, logger, state)
        logger.on_run_start(running)
        steps(running, [logger], 12 if state is None else 13)
        state = checkpoint(running, logger)
        steps(running, [logger], 15)
        kill(logger)
    run(running := engine(), resumed := kind(path), until=0)
    assert path.exists()
    assert resumed.state_dict()["size"] == path.stat().st_size
    assert running.step_count == 0


@FILES
def test_a_file_that_is_gone_or_shorter_is_added_to(tmp_path, kind, name):
    path = tmp_path / name
    first, before = kind(path), engine()
    first.on_run_start(before)
    steps(before, [first], 10)
    state = checkpoint(before, first)
    first.on_run_end(before)
    path.unlink()
    again, after = kind(path), engine()
    restore(after, again, state)
    run(after, again)
    assert next(record["step"] for record in timeless(path)) in (14, "14")


class FullDisk(FileIO):
    """A file on a disk with little room: part of the line that is too much arrives, then an error."""

    room = 10**9

    def write(self, data: Any) -> int:
        fits = data[: type(self).room]
        if not fits and data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        type(self).room -= len(fits)
        return super().write(fits)


@FILES
@pytest.mark.parametrize("cuttable", [True, False], ids=["file", "pipe"])
def test_after_a_full_disk_the_lines_are_readable_and_those_before_are_kept(
    tmp_path, monkeypatch, kind, name, cuttable
):
    class Disk(FullDisk):
        def truncate(self, size: int | None = None) -> int:
            if not cuttable:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return super().truncate(size)

    monkeypatch.setattr(text_file, "FileIO", Disk)
    path = tmp_path / name
    running, logger = fake_engine(log_step=1, lower=-1), kind(path)
    logger.on_run_start(running)
    steps(running, [logger], 4)
    Disk.room = 7
    with pytest.warns(LoggerWarning, match=rf"logger '{kind.name}': OSError: .*No space left"):
        steps(running, [logger], 9)
    Disk.room = 10**9
    steps(running, [logger], 12)
    logger.on_run_end(running)
    if not cuttable:  # then half a line stays, and is ended
        lines = path.read_text().splitlines(keepends=True)
        assert len(lines.pop(4 + (kind is Csv))) == 7 + 1
        path.write_text("".join(lines))
    said = [int(record["step"]) for record in timeless(path) if record.get("problem") == "lower"]
    assert said == [1, 2, 3, 4, 10, 11, 12]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_really_full_does_not_end_the_run():
    with pytest.warns(LoggerWarning, match="No space left"):
        run(engine(), JsonLines(Path("/dev/full")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_one_that_is_full_before_anything_is_written_is_said_before_training():
    with pytest.raises(ConfigError, match=r"logger 'csv': cannot start: OSError: .*No space left"):
        Csv(Path("/dev/full")).on_run_start(engine())


@FILES
def test_a_folder_that_is_a_file_is_said_before_training(tmp_path, kind, name):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=rf"logger '{kind.name}': cannot start: .*taken"):
        kind(tmp_path / "taken" / name).on_run_start(engine())


@FILES
def test_the_state_counts_what_is_on_the_disk(tmp_path, kind, name):
    path = tmp_path / name
    logger, running = kind(path), engine()
    logger.on_run_start(running)
    steps(running, [logger], 20)
    state = logger.state_dict()
    assert state["size"] == path.stat().st_size
    assert path.read_text().endswith(state["last"])
    logger.on_exception(running, KeyboardInterrupt())
    assert logger.state_dict()["size"] == state["size"]
