"""The checkpoints that stay are those that sorting gives, whole at any moment, and the same however often resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from multilevel.engine.callbacks import KeepBest, keep_best
from multilevel.engine.checkpoints.file import read_checkpoint, write_checkpoint
from multilevel.hypergrad.errors import CheckpointError, CheckpointWarning, ConfigError
from multilevel.problems.packing import unpack

from ..states import differences
from .scripted import EVERY, Record, cut, everything, scripted

NAN, INF = math.nan, math.inf
VALUES = [3.0, 1.0, NAN, 2.0, 1.0, None, INF, 0.5, -4.0]


def sorted_by_hand(values: list[float | None], mode: str, count: int) -> list[tuple[float, int]]:
    """Value and engine step of the best, the best first."""
    finite = [(v, (i + 1) * EVERY) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    return sorted(finite, key=lambda entry: (entry[0] if mode == "min" else -entry[0], entry[1]))[:count]


def on_disk(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def run(folder: Path, *callbacks: Any, values: list[float | None] = VALUES, **config: Any) -> Any:
    engine = scripted(values, *callbacks, run_dir=str(folder), **config)
    engine.run()
    return engine


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_what_stays_is_what_sorting_gives(tmp_path, mode, count):
    best = KeepBest("score", mode, count)
    engine = run(tmp_path, best)
    expected = sorted_by_hand(VALUES, mode, count)
    assert best.kept == expected
    assert [path.name for path in best.files(engine)] == [
        f"best-score-{value:g}-step-{step:08d}.pt" for value, step in expected
    ]
    assert on_disk(tmp_path) == {path.name for path in best.files(engine)}


def test_each_is_the_run_as_it_was_then(tmp_path):
    record, best = Record(), KeepBest("score", count=3)
    whole = run(tmp_path, record, best)
    for (_, step), path in zip(best.kept, best.files(whole), strict=True):
        engine = scripted(VALUES, Record(), KeepBest("score", count=3), run_dir=str(tmp_path))
        engine.load_state_dict(read_checkpoint(path))
        assert engine.step_count == step
        assert not differences(everything(engine), record.states[step])


def test_a_run_that_goes_on_from_one_ends_like_the_run_it_is_of(tmp_path):
    whole = run(tmp_path, best := KeepBest("score", count=2))
    files = on_disk(tmp_path)
    engine = scripted(VALUES, again := KeepBest("score", count=2), run_dir=str(tmp_path))
    engine.load_state_dict(read_checkpoint(best.files(whole)[1]))
    engine.run()
    assert not differences(everything(engine), everything(whole))
    assert again.kept == best.kept
    assert on_disk(tmp_path) == files


def test_the_worst_is_removed_only_after_the_new_one_is_there(tmp_path, monkeypatch):
    there = []

    def write(path, state, step):
        there.append(on_disk(tmp_path))
        write_checkpoint(path, state, step)

    monkeypatch.setattr(keep_best, "write_checkpoint", write)
    run(tmp_path, KeepBest("score"), values=[3.0, 2.0, 1.0])
    assert there == [set(), {"best-score-3-step-00000002.pt"}, {"best-score-2-step-00000004.pt"}]


@pytest.mark.parametrize("steps", range(0, 19, 3))
def test_a_run_in_two_parts_keeps_the_same(tmp_path, steps):
    """What the first life did beyond the point that the second goes on from is there until it is written anew."""
    whole = KeepBest("score", count=2)
    run(tmp_path / "whole", whole)
    folder = tmp_path / "parts"
    first = scripted(VALUES, KeepBest("score", count=2), run_dir=str(folder))
    state = cut(first, steps, tmp_path)
    while not first.done:
        first.step()
    (folder / "checkpoints" / ".best-score-1-step-00000004.pt.123").touch()
    before = on_disk(folder)
    second = scripted(VALUES, again := KeepBest("score", count=2), run_dir=str(folder))
    second.load_state_dict(state)
    second.callbacks.on_run_start(second)
    assert on_disk(folder) == {name for name in before if not name.startswith(".")}
    second.run()
    assert again.kept == whole.kept
    assert on_disk(folder) == on_disk(tmp_path / "whole")
    for name in on_disk(folder):
        ours, theirs = (read_checkpoint(f / "checkpoints" / name)["problems"] for f in (folder, tmp_path / "whole"))
        assert not differences(ours, theirs)


def test_what_a_resumed_run_did_not_make_again_goes_when_it_has_come_so_far(tmp_path):
    state = cut(scripted([3.0, 2.0], KeepBest("score"), run_dir=str(tmp_path)), 2, tmp_path)
    run(tmp_path, KeepBest("score"), values=[3.0, 2.0])
    assert on_disk(tmp_path) == {"best-score-2-step-00000004.pt"}
    second = scripted([3.0, 2.5, 4.0], KeepBest("score"), run_dir=str(tmp_path))
    second.load_state_dict(state)
    second.run()
    assert on_disk(tmp_path) == {"best-score-2.5-step-00000004.pt"}


def test_several_do_not_remove_each_others(tmp_path):
    both = KeepBest("score", "min"), KeepBest("score", "max"), KeepBest("other", "max", 2)
    run(tmp_path, *both, values=[1.0, 2.0, 3.0])
    assert on_disk(tmp_path) == {
        "best-score-1-step-00000002.pt",
        "best-score-3-step-00000006.pt",
        "best-other-6-step-00000006.pt",
        "best-other-4-step-00000004.pt",
    }


@pytest.mark.parametrize("names", [("loss", "loss-2"), ("a/b", "a_b"), ("../../x", "x"), ("é" * 300, "ö")])
def test_any_metric_makes_a_name_in_the_folder(tmp_path, names):
    callbacks = [KeepBest(name) for name in names]
    engine = scripted([2.0, 1.0], *callbacks, run_dir=str(tmp_path))
    engine.validation = lambda: {name: -1e-7 * engine.step_count for name in names}
    engine.run()
    assert all(path.is_file() for callback in callbacks for path in callback.files(engine))
    assert len(on_disk(tmp_path)) == len({path for callback in callbacks for path in callback.files(engine)})


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), CheckpointError("No space left for it")])
def test_a_full_disk_and_a_state_that_is_no_data_cost_a_warning_and_that_checkpoint(tmp_path, monkeypatch, error):
    def write(path, state, step):
        if step == 2 * EVERY:
            raise error
        write_checkpoint(path, state, step)

    monkeypatch.setattr(keep_best, "write_checkpoint", write)
    best = KeepBest("score", count=2)
    with pytest.warns(CheckpointWarning, match=r"step 4: .* could not be written .*No space left.*; the run goes on"):
        run(tmp_path, best, values=[3.0, 1.0, 2.0, 4.0])
    assert best.kept == [(2.0, 6), (3.0, 2)]
    assert on_disk(tmp_path) == {"best-score-2-step-00000006.pt", "best-score-3-step-00000002.pt"}


def test_a_checkpoint_that_cannot_be_removed_costs_a_warning(tmp_path, monkeypatch):
    def unlink(path, missing_ok=False):
        raise PermissionError(f"{path.name} is not yours")

    engine = scripted([2.0, 1.0], best := KeepBest("score"), run_dir=str(tmp_path))
    monkeypatch.setattr(keep_best, "write_checkpoint", lambda path, state, step: path.touch())
    monkeypatch.setattr(keep_best, "read_checkpoint", lambda path: {})
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.warns(CheckpointWarning, match=r"step 4: .* could not be removed .*; the run goes on"):
        engine.run()
    assert best.kept == [(1.0, 4)]


def test_a_run_without_a_folder_is_refused_at_its_start():
    with pytest.raises(ConfigError, match=r"KeepBest: needs a folder to write to; give EngineConfig\(run_dir="):
        scripted([1.0], KeepBest("score")).run()


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"KeepBest: .* cannot be written to"):
        run(tmp_path / "file", KeepBest("score"))


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="count: expected at least 1, got 0"):
        KeepBest("score", count=0)


def test_the_settings_of_an_engine_ask_for_it(tmp_path):
    engine = run(
        tmp_path,
        values=[3.0, 1.0, 2.0],
        keep_best={"metric": "score", "mode": "max", "count": 2},
        early_stopping={"metric": "score", "patience": 1},
    )
    assert on_disk(tmp_path) == {"best-score-3-step-00000002.pt", "best-score-2-step-00000006.pt"}
    state = read_checkpoint(tmp_path / "checkpoints" / "best-score-2-step-00000006.pt")
    stopping = unpack(state["callbacks"]["EarlyStopping"])
    assert stopping["stopped_step"] == 6
    assert engine.last_validation["score"] == 1.0
    assert torch.is_tensor(stopping["weights"]["lower"]["buffers"]["calls"])
