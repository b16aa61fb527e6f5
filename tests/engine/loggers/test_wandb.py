"""What an offline run of W&B leaves behind."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multilevel.engine.loggers.wandb import Wandb
from multilevel.hypergrad.errors import ConfigError

from .fakes import fake_engine, killed_and_resumed, run

pytest.importorskip("wandb")

BLOCK, HEADER = 32768, 7
"""W&B's file is a LevelDB log: blocks of chunks, each with checksum, length and kind in front."""
WHOLE, LAST = 1, 4


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")


def engine() -> Any:
    return fake_engine(lower=-1, upper=7)


def parts(folder: Path) -> list[list[Any]]:
    """The records of each offline run of a folder, oldest first, when all are there: W&B's own process writes them."""
    paths = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [finished(path) for path in paths]


def finished(path: Path, seconds: float = 30.0) -> list[Any]:
    """The records of a run, when its end is among them."""
    from wandb.proto import wandb_internal_pb2 as protocol

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = [protocol.Record.FromString(data) for data in chunks(path)]
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{path}: W&B has not written the end of the run")


def chunks(path: Path) -> Iterator[bytes]:
    data, position, record = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER + length
        if position > len(data):
            return  # still being written
        record += data[position - length : position]
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def history(part: list[Any]) -> list[dict[str, str]]:
    return [
        {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        for record in part
        if record.HasField("history")
    ]


def points(part: list[Any], metric: str) -> list[tuple[int, float]]:
    return [(int(found["step"]), float(found[metric])) for found in history(part) if metric in found]


def test_an_offline_run_has_every_metric_by_engine_step_and_the_hyperparameters(tmp_path):
    run(engine(), Wandb(tmp_path, project="digits", run_name="first", entity="team", mode="offline"))
    (part,) = parts(tmp_path)
    assert points(part, "lower/loss") == [(10, 2.5), (20, 5.0), (25, 6.25)]
    assert points(part, "upper/loss") == [(7, 1.75), (14, 3.5), (21, 5.25), (25, 6.25)]
    assert points(part, "validation/accuracy") == [(step, step / 32) for step in (5, 10, 15, 20, 25)]
    (started,) = [record.run for record in part if record.HasField("run")]
    assert (started.project, started.entity, started.display_name) == ("digits", "team", "first")
    config = {item.key: item.value_json for item in started.config.update}
    assert config["lower.optimizer.lr"] == "0.25"
    assert config["engine.train_iters"] == "25"
    assert [record.exit.exit_code for record in part if record.HasField("exit")] == [0]


@pytest.mark.parametrize("saved", [0, 13])
def test_a_run_that_goes_on_from_a_checkpoint_keeps_its_id_and_a_failed_one_says_so(tmp_path, saved):
    logger = killed_and_resumed(lambda: Wandb(tmp_path, mode="offline"), engine, saved, 18)
    first, second = parts(tmp_path)
    ids = {record.run.run_id for part in (first, second) for record in part if record.HasField("run")}
    assert len(ids) == 1
    assert points(second, "lower/loss") == [(step, step / 4) for step in (10, 20, 25) if step > saved]
    running = engine()
    logger.on_run_start(running)
    logger.on_exception(running, RuntimeError("boom"))
    assert [record.exit.exit_code for record in parts(tmp_path)[-1] if record.HasField("exit")] == [1]


def test_the_run_is_named_like_its_folder(tmp_path):
    run(engine(), Wandb(tmp_path / "digits-3", mode="offline"), until=1)
    (part,) = parts(tmp_path / "digits-3")
    assert [record.run.display_name for record in part if record.HasField("run")] == ["digits-3"]


def test_a_folder_that_is_a_file_is_said_before_training(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"logger 'wandb': cannot start: .*taken"):
        Wandb(tmp_path / "taken", mode="offline").on_run_start(engine())
