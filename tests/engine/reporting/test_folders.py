"""A path stands for a run, for its seeds, or for a sweep; and where it stands for nothing, what there is is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multilevel.engine.reporting.folders import read_groups, read_one
from multilevel.hypergrad.errors import ConfigError

from .folder import write_run


def labels(*paths: Path) -> dict[str, list[str]]:
    return {group.label: [run.path.name for run in group.runs] for group in read_groups(paths)}


def test_a_run_is_a_group_of_its_own(tmp_path):
    assert labels(write_run(tmp_path / "a"), write_run(tmp_path / "b")) == {"a": ["a"], "b": ["b"]}


def test_seeds_are_one_group_in_their_order(tmp_path):
    for seed in (10, 2, 0):
        write_run(tmp_path / "a" / f"seed{seed}")
    assert labels(tmp_path / "a") == {"a": ["seed0", "seed2", "seed10"]}


def test_folders_of_folders_are_searched_and_numbers_sorted_by_value(tmp_path):
    for rate in ("0.1", "0.003", "1e-2"):
        for seed in range(2):
            write_run(tmp_path / f"lr={rate}" / f"seed{seed}")
    assert list(labels(tmp_path)) == ["lr=0.003", "lr=1e-2", "lr=0.1"]


def test_a_run_that_is_named_twice_is_drawn_once(tmp_path):
    path = write_run(tmp_path / "a")
    assert labels(path, path) == {"a": ["a"]}


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    paths = [write_run(tmp_path / parent / "run") for parent in ("x", "y")]
    assert list(labels(*paths)) == ["x/run", "y/run"]


def test_a_sweep_is_read_by_its_record(tmp_path):
    runs = []
    for rate in (0.1, 0.01):
        for seed in range(2):
            write_run(tmp_path / "s" / f"{rate}-{seed}")
            runs.append({"folder": f"{rate}-{seed}", "settings": {"problems.a.optimizer.lr": rate}, "seed": seed})
    record = {"experiment": "demo", "jobs": 1, "metric": None, "runs": runs}
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(record))
    assert labels(tmp_path / "s") == {"lr=0.1": ["0.1-0", "0.1-1"], "lr=0.01": ["0.01-0", "0.01-1"]}
    assert list(labels(tmp_path / "s", write_run(tmp_path / "a"))) == ["s, lr=0.1", "s, lr=0.01", "a"]
    (tmp_path / "s" / "sweep.json").write_text("{")
    assert list(labels(tmp_path / "s")) == ["0.01-0", "0.01-1", "0.1-0", "0.1-1"]


def test_a_name_that_is_nearly_right_gets_the_right_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/digits"))
    write_run(Path("runs/cartpole/seed0"))
    (tmp_path / "runs" / "empty").mkdir()
    for wrong in ("runs/digitz", "digits"):
        with pytest.raises(ConfigError, match="did you mean 'runs/digits'") as raised:
            read_groups([Path(wrong)])
        assert "runs here: runs/cartpole, runs/digits" in str(raised.value)
    with pytest.raises(ConfigError, match="runs/empty: there is no run in it") as raised:
        read_one(Path("runs/empty"))
    assert "runs/empty," not in str(raised.value)


def test_a_file_is_no_folder(tmp_path):
    path = write_run(tmp_path / "a")
    with pytest.raises(ConfigError, match=f"expected the folder of a run, got a file; try {path}"):
        read_groups([path / "metrics.jsonl"])


def test_a_report_is_about_one_run(tmp_path):
    for seed in range(20):
        write_run(tmp_path / f"seed{seed}", [])
    with pytest.raises(ConfigError, match=r"there are 20 in it; name one: .*seed0, .*seed7, \.\.\.") as raised:
        read_one(tmp_path)
    assert f"multilevel plot {tmp_path}" in str(raised.value)
    assert read_one(tmp_path / "seed3").path == tmp_path / "seed3"
