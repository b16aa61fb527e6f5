"""Data, disks and files that are not as they should be in a long run, and what becomes of it.

Where the run goes on, it goes on as documented; where it ends, nothing that was saved is lost.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from multilevel import Callback, Config, ConfigError, Engine, EngineConfig
from multilevel.engine.checkpoints.file import read_checkpoint
from multilevel.hypergrad.errors import CheckpointError, CheckpointWarning

from ..givens import Given, Vector, assert_same, bits, square


class Flaky(Dataset[Tensor]):
    """Samples of which one cannot be read until it is mended."""

    def __init__(self, broken: int | None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Tensor:
        if i == self.broken:
            raise OSError(errno.EIO, "Input/output error", f"sample-{i}.png")
        return torch.tensor([float(i)])


def fed(run_dir: Path, broken: int | None, level: str, **config: Any) -> Engine:
    """Two levels with shuffled data, at one of which a sample may be broken."""
    torch.manual_seed(0)

    def lower(problem: Given, batch: Tensor) -> Tensor:
        return (problem.module() - problem.upper() - batch.mean() + torch.rand(())).square().sum() / 2

    def upper(problem: Given, batch: Tensor) -> Tensor:
        return (problem.lower() - batch.mean()).square().sum() / 2

    def data(name: str) -> DataLoader[Tensor]:
        return DataLoader(Flaky(broken if name == level else None), 3, shuffle=True)

    problems = [
        Given("lower", lower, train_data_loader=data("lower"), config=Config(type="unroll", unroll_steps=2)),
        Given("upper", upper, train_data_loader=data("upper")),
    ]
    settings: dict[str, Any] = {"train_iters": 20, "checkpoint_every": 2, "seed": 0, "run_dir": str(run_dir), **config}
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(**settings))


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.mark.parametrize("level", ["lower", "upper"])
def test_data_that_raises_ends_the_run_which_goes_on_when_it_is_mended(level: str, tmp_path: Path) -> None:
    whole = fed(tmp_path / "whole", None, level)
    whole.run()
    failed = fed(tmp_path / "run", None, level)
    dataset = failed[level].train_data_loader.dataset

    class Breaks(Callback):
        def on_step_end(self, engine: Engine) -> None:
            dataset.broken = 4 if engine.step_count >= 5 else None

    failed.callbacks.callbacks.append(Breaks())
    with pytest.raises(OSError, match=r"sample-4.png"):
        failed.run()
    assert 5 <= failed.step_count < 20
    saved = failed.step_count - failed.step_count % 2
    assert names(tmp_path / "run")[-1] == f"step-{saved:08d}.pt"

    mended = fed(tmp_path / "run", None, level)
    assert mended.resume() == saved
    mended.run()
    assert_same(bits(mended), bits(whole))


@contextmanager
def quota(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the system refuses to write them, as it does where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Limited(Callback):
    """Keeps files below a size during some engine steps."""

    def __init__(self, size: int, first: int, last: int) -> None:
        self.size, self.first, self.last = size, first, last

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count == self.first:
            self.quota = quota(self.size)
            self.quota.__enter__()
        if engine.step_count == self.last:
            self.on_exception(engine, KeyboardInterrupt())

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self.quota.__exit__(None, None, None)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_disk_that_is_full_for_a_while_costs_the_checkpoints_of_that_while_only(size: int, tmp_path: Path) -> None:
    whole = fed(tmp_path / "whole", None, "lower", keep=99)
    whole.run()
    engine = fed(tmp_path / "run", None, "lower", keep=99)
    engine.callbacks.callbacks.append(Limited(size, 5, 9))
    with pytest.warns(CheckpointWarning) as caught:
        engine.run()
    messages = [str(warning.message) for warning in caught]
    assert [message.partition(":")[0] for message in messages] == ["step 6", "step 8"]
    assert all("no checkpoint could be written" in message for message in messages)
    assert names(tmp_path / "run") == [n for n in names(tmp_path / "whole") if int(n[5:13]) not in (6, 8)]
    for path in sorted((tmp_path / "run" / "checkpoints").iterdir()):
        got, expected = read_checkpoint(path), read_checkpoint(tmp_path / "whole" / "checkpoints" / path.name)
        assert_same({**got, "times": {}, "callbacks": {}}, {**expected, "times": {}, "callbacks": {}})


@pytest.mark.parametrize("where", ["open", "fsync", "mkdir", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_whatever_the_system_refuses_the_last_checkpoint_stays(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fed(tmp_path, None, "lower", train_iters=4, keep=1)
    place = os if where == "fsync" else Path
    real = getattr(place, where)

    def refused(*arguments: Any, **options: Any) -> Any:
        if engine.step_count == 4:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(place, where, refused)
    with pytest.warns(CheckpointWarning, match=f"step 4: no checkpoint could be written.*{os.strerror(number)}"):
        engine.run()
    monkeypatch.undo()
    assert names(tmp_path) == ["step-00000002.pt"]
    assert fed(tmp_path, None, "lower").resume() == 2


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        engine = fed(run_dir, None, "lower")
        with pytest.raises(ConfigError, match=r"run_dir: cannot be written to: .*file"):
            engine.run()
        assert engine["lower"].count == 0
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_that_is_full_from_the_start_is_refused_before_training(tmp_path: Path) -> None:
    engine = fed(tmp_path, None, "lower")
    with quota(1000), pytest.raises(ConfigError, match=r"run_dir: cannot be written to: .*File too large"):
        engine.run()
    assert engine["lower"].count == 0
    assert names(tmp_path) == []
    fed(tmp_path, None, "lower").run()


@pytest.mark.parametrize("every", [0, 2])
def test_checkpoints_of_another_run_are_not_mixed_with_ones_own(every: int, tmp_path: Path) -> None:
    fed(tmp_path, None, "lower", train_iters=4).run()
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    second = fed(tmp_path, None, "lower", checkpoint_every=every)
    with pytest.raises(ConfigError, match=r"there are checkpoints of a run in it; go on.*engine.resume\(\)"):
        second.run()
    assert second["lower"].count == 0
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    assert second.resume() == 4
    second.run()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"x" * 3000])
def test_a_damaged_newest_one_costs_the_steps_since_the_one_before(damage: bytes, tmp_path: Path) -> None:
    whole = fed(tmp_path / "whole", None, "lower")
    whole.run()
    fed(tmp_path / "run", None, "lower", train_iters=8).run()
    (tmp_path / "run" / "checkpoints" / "step-00000008.pt").write_bytes(damage)
    resumed = fed(tmp_path / "run", None, "lower")
    with pytest.warns(CheckpointWarning, match=r"step-00000008.pt: is damaged.*going on from step-00000006.pt instead"):
        assert resumed.resume() == 6
    resumed.run()
    assert_same(bits(resumed), bits(whole))
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000020.pt")


def test_a_damaged_newer_one_does_not_crowd_out_what_is_written_after_it(tmp_path: Path) -> None:
    """It was saved by an interruption at step 7, say; the run went on from step 4 and saves at step 6."""
    fed(tmp_path, None, "lower", train_iters=4).run()
    (tmp_path / "checkpoints" / "step-00000007.pt").write_bytes(b"damaged")
    resumed = fed(tmp_path, None, "lower", train_iters=6, keep=1)
    with pytest.warns(CheckpointWarning, match="is damaged"):
        assert resumed.resume() == 4
    resumed.run()
    again = fed(tmp_path, None, "lower", train_iters=8, keep=1)
    with pytest.warns(CheckpointWarning, match="is damaged"):
        assert again.resume() == 6
    again.run()
    assert names(tmp_path) == ["step-00000008.pt"]


def test_the_state_of_another_hierarchy_is_refused(tmp_path: Path) -> None:
    fed(tmp_path, None, "lower", train_iters=2).run()
    other = Engine([Given("only", lambda p, b: p.module().sum())], config=EngineConfig(run_dir=str(tmp_path)))
    with pytest.raises(
        ConfigError, match=r"the state is that of problems \['lower', 'upper'\], this engine has \['only'\]"
    ):
        other.resume()


@pytest.mark.parametrize("part", ["module", "optimizer", "parameter groups"])
def test_a_state_that_does_not_fit_is_refused_by_name(part: str, tmp_path: Path) -> None:
    def built(changed: bool) -> Engine:
        module = Vector(*([1.0, 2.0] if changed and part == "module" else [1.0]))
        groups: Any = [{"params": [module.value]}]
        if changed and part == "parameter groups":
            module.other = nn.Parameter(torch.ones(1), requires_grad=False)
            groups = [*groups, {"params": [module.other]}]
        kind: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
        if changed and part == "optimizer":
            kind = torch.optim.Adam
        problem = Given("p", lambda p, b: p.module().square().sum(), module, optimizer=kind(groups, lr=0.1))
        config = EngineConfig(run_dir=str(tmp_path), checkpoint_every=2, train_iters=2)
        return Engine([problem], config=config)

    built(False).run()
    with pytest.raises(
        CheckpointError, match=r"(?s)problem 'p': the checkpoint does not fit it: .*built in another way"
    ):
        built(True).resume()


def test_a_state_that_cannot_be_read_again_is_refused_before_training(tmp_path: Path) -> None:
    engine = fed(tmp_path, None, "lower")
    engine["upper"].optimizer.param_groups[0]["place"] = Path("x")
    where = r"PosixPath, at \['problems'\]\['upper'\].*\['optimizer'\]\['param_groups'\]\[0\]\['place'\]"
    with pytest.raises(CheckpointError, match=f"holds something else than tensors, numbers, texts.*{where}"):
        engine.run()
    assert engine["lower"].count == 0
    fed(tmp_path, None, "lower").run()  # nothing is left in its way


@pytest.mark.parametrize("roll_back", [False, True])
def test_batches_that_cannot_be_written_are_warned_of_and_the_run_goes_on(roll_back: bool, tmp_path: Path) -> None:
    def built() -> Engine:
        data = [(lambda: torch.tensor(1.0),), (lambda: torch.tensor(2.0),)]
        problems = [
            Given("upper", lambda p, b: (p.lower() - 1).square().sum()),
            Given(
                "lower",
                lambda p, b: (p.module() - p.upper() - b[0]()).square().sum(),
                train_data_loader=data,
                config=Config(unroll_steps=2),
            ),
        ]
        config = EngineConfig(train_iters=6, run_dir=str(tmp_path), checkpoint_every=3, roll_back=roll_back)
        return Engine(problems, edges=[("upper", "lower")], config=config)

    with pytest.warns(CheckpointWarning) as caught:
        built().run()
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1 + roll_back
    assert "problem 'lower', in a batch: a builtins.function cannot be written" in messages[0]
    assert "close to, but not exactly, the uninterrupted run" in messages[0]
    assert "roll_back, in a batch: a builtins.function cannot be written" in messages[-1] or not roll_back
    resumed = built()
    assert resumed.resume() == 6
    resumed.step()


class Spoiling(Callback):
    """Turns the state of an optimizer into something else than data."""

    def __init__(self, spoilt: Any) -> None:
        self.spoilt = spoilt

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count == 3:
            engine["p"].optimizer.param_groups[0]["rule"] = self.spoilt


@pytest.mark.parametrize("spoilt", [Path("somewhere"), lambda: 1, threading.Lock(), (i for i in range(3))])
def test_a_state_that_could_not_be_read_again_pushes_no_good_one_out(spoilt: Any, tmp_path: Path) -> None:
    config = EngineConfig(train_iters=6, checkpoint_every=1, keep=1, run_dir=str(tmp_path))
    engine = Engine([Given("p", square)], config=config, callbacks=[Spoiling(spoilt)])
    with pytest.warns(
        CheckpointWarning, match=r"no checkpoint could be written.*something else than tensors"
    ) as caught:
        engine.run()
    ends = ["the run goes on; the last one, of step 2, is still there"] * 3 + [
        "the last one, of step 2, is still there"
    ]
    assert [str(warning.message).partition("['rule']); ")[2] for warning in caught] == ends
    assert engine.step_count == 6
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.pt"]


def test_steps_without_a_run_do_not_write_into_the_folder_of_another(tmp_path: Path) -> None:
    def engine() -> Engine:
        config = EngineConfig(train_iters=6, checkpoint_every=2, run_dir=str(tmp_path))
        return Engine([Given("p", square)], config=config)

    engine().run()
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    other = engine()
    other.step()
    with pytest.raises(ConfigError, match="there are checkpoints of a run in it"):
        other.step()
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
