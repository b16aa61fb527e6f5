"""What TensorBoard itself reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multilevel import LoggerWarning
from multilevel.engine.loggers.tensorboard import TensorBoard
from multilevel.hypergrad.errors import ConfigError

from .fakes import checkpoint, fake_engine, kill, killed_and_resumed, restore, run, steps

pytest.importorskip("tensorboard")


@pytest.fixture(autouse=True)
def _files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files are read in the order of their names: the second, the process, and a number without zeros before it.

    Only here do several begin in one second.
    """
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))


def engine() -> Any:
    return fake_engine(lower=-1, upper=7)


def accumulated(folder: Path) -> Any:
    """What the page is served: scalars too are tensors there."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = accumulated(folder)
    tags = found.PluginTagToContent("scalars")
    return {tag: [(e.step, e.tensor_proto.float_val[0]) for e in found.Tensors(tag)] for tag in sorted(tags)}


def text(found: Any, tag: str) -> str:
    return str(found.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode())


def test_scalars_are_under_problem_and_metric_by_engine_step(tmp_path):
    run(engine(), TensorBoard(tmp_path))
    assert curves(tmp_path) == {
        "lower/loss": [(10, 2.5), (20, 5.0), (25, 6.25)],
        "upper/loss": [(7, 1.75), (14, 3.5), (21, 5.25), (25, 6.25)],
        "validation/accuracy": [(step, step / 32) for step in (5, 10, 15, 20, 25)],
    }


def test_the_graph_and_the_hyperparameters_are_there_as_text_and_for_comparison(tmp_path):
    run(engine(), TensorBoard(tmp_path), until=1)
    found = accumulated(tmp_path)
    assert "upper" in text(found, "graph")
    assert "⇅ lower" in text(found, "graph")
    settings = text(found, "hyperparameters")
    assert "| lower.optimizer.lr | 0.25 |" in settings
    assert "| engine.train_iters | 25 |" in settings
    assert "_hparams_/session_start_info" in found.summary_metadata
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(("saved", "killed"), [(0, 3), (4, 23), (10, 14), (13, 15)])
def test_a_killed_and_resumed_run_shows_the_points_of_an_uninterrupted_one(tmp_path, saved, killed):
    run(engine(), TensorBoard(tmp_path / "whole"))
    killed_and_resumed(lambda: TensorBoard(tmp_path / "parts"), engine, saved, killed)
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")
    assert len(accumulated(tmp_path / "parts").Tensors("graph/text_summary")) == 1


def test_a_validation_before_training_is_shown_once(tmp_path):
    first, before = TensorBoard(tmp_path), engine()
    state = checkpoint(before, first)
    first.on_run_start(before)
    first.on_validation(before, {"accuracy": 0.125})
    steps(before, [first], 2)
    kill(first)
    again, after = TensorBoard(tmp_path), engine()
    restore(after, again, state)
    again.on_run_start(after)
    again.on_validation(after, {"accuracy": 0.125})
    again.on_exception(after, RuntimeError())
    assert curves(tmp_path) == {"validation/accuracy": [(0, 0.125)]}
    assert len(accumulated(tmp_path).Tensors("graph/text_summary")) == 1


def test_a_level_written_in_a_step_that_a_checkpoint_split_is_shown_once(tmp_path):
    """An interruption saves between two levels of one engine step."""
    first, before = TensorBoard(tmp_path), fake_engine(lower=1)
    first.on_run_start(before)
    steps(before, [first], 3)
    problem = before.problems["lower"]
    problem.count = 4
    first.on_level_step(before, problem, {"loss": 1.0})
    state = checkpoint(before, first)
    kill(first)
    again, after = TensorBoard(tmp_path), fake_engine(lower=1)
    restore(after, again, state)
    again.on_run_start(after)
    after.step_count = 4
    steps(after, [again], 6)
    again.on_run_end(after)
    assert curves(tmp_path)["lower/loss"] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 1.25), (6, 1.5)]


def test_without_a_checkpoint_a_run_is_added_to_what_is_there(tmp_path):
    for _ in range(2):
        run(fake_engine(lower=-1), TensorBoard(tmp_path), until=3)
    assert curves(tmp_path) == {"lower/loss": [(3, 0.75), (3, 0.75)]}


def test_half_an_event_does_not_hide_what_comes_after_it(tmp_path):
    first, before = TensorBoard(tmp_path / "parts"), engine()
    first.on_run_start(before)
    steps(before, [first], 13)
    state = checkpoint(before, first)
    steps(before, [first], 20)
    kill(first)
    (file,) = (tmp_path / "parts").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    again, after = TensorBoard(tmp_path / "parts"), engine()
    restore(after, again, state)
    run(after, again)
    run(engine(), TensorBoard(tmp_path / "whole"))
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_failed_is_replaced_when_there_is_room_again(tmp_path, monkeypatch):
    logger, running = TensorBoard(tmp_path), fake_engine(log_step=1, lower=-1)
    logger.on_run_start(running)
    steps(running, [logger], 2)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logger._writer.file_writer.event_writer._async_writer._writer, "write", full)
        patch.setattr(Path, "write_bytes", full)
        with pytest.warns(LoggerWarning, match="logger 'tensorboard': OSError") as caught:
            steps(running, [logger], 4)
    assert len(caught) == 1
    steps(running, [logger], 6)
    logger.on_run_end(running)
    assert [step for step, _ in curves(tmp_path)["lower/loss"]] == [1, 2, 5, 6]


def test_a_folder_that_is_a_file_is_said_before_training(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"logger 'tensorboard': cannot start: .*taken"):
        TensorBoard(tmp_path / "taken").on_run_start(engine())
