"""The bar says where a run is, fetches only what it draws, and is silent where nobody watches."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest
import torch

from multilevel import Engine, EngineConfig
from multilevel.engine.callbacks import ProgressBar

from ...givens import Given, alone, hierarchy


class Terminal(io.StringIO):
    """Standard error that a person watches."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Fetched:
    """A tensor that counts how often it is fetched."""

    count = 0

    def __init__(self, value: float) -> None:
        self.value = torch.tensor(value)
        self.shape, self.size = self.value.shape, self.value.size

    def item(self) -> float:
        Fetched.count += 1
        return self.value.item()


def watched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Call it in a test: pytest puts its own standard error in place before that."""
    written = Terminal()
    monkeypatch.setattr(sys, "stderr", written)
    return written


def frames(written: str) -> list[str]:
    """What was drawn, line by line, without the moves of the cursor."""
    return [line.strip() for line in written.replace("\x1b[A", "").replace("\r", "\n").split("\n") if line.strip()]


def screen(written: str) -> list[str]:
    """What a terminal shows when all is written."""
    lines: dict[int, str] = {}
    row = column = 0
    for part in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", written):
        if part == "\x1b[A":
            row -= 1
        elif part in "\r\n":
            row, column = row + (part == "\n"), 0
        else:
            line = lines.get(row, "").ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [text.rstrip() for _, text in sorted(lines.items()) if text.strip()]


def only(train_iters: int = 25) -> Engine:
    return alone(Given("only", lambda p, batch: p.module().square().sum()), train_iters=train_iters, device="cpu")


def three(**config: Any) -> Engine:
    engine = hierarchy({"top": ["middle"], "middle": ["low"]}, low={"unroll_steps": 3, "warmup_steps": 2})
    engine.config = EngineConfig(train_iters=9, device="cpu", **config)
    return engine


def run(engine: Engine, bar: ProgressBar) -> None:
    engine.callbacks.callbacks.append(bar)
    engine.run()


def test_it_is_silent_where_standard_error_is_no_terminal(capsys):
    engine = three()
    run(engine, bar := ProgressBar("toy", interval=0.0))
    bar.on_run_start(engine)
    bar.on_validation(engine, {"accuracy": 0.5})
    bar.on_exception(engine, KeyboardInterrupt())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("interval", "drawn"), [(1e9, 1), (0.0, 26)])
def test_a_loss_is_fetched_only_when_it_is_drawn(interval, drawn, capsys):
    engine, bar = only(), ProgressBar("toy", interval, shown=True)
    Fetched.count = 0
    bar.on_run_start(engine)
    for step in range(1, 26):
        engine.step_count, engine.last_metrics = step, {"only": {"loss": Fetched(float(step))}}
        bar.on_step_end(engine)
    bar.on_run_end(engine)
    assert Fetched.count == drawn
    last = frames(capsys.readouterr().err)[-1]
    assert last.startswith("toy: 100%|")
    assert "25/25" in last
    assert last.endswith("only 25]")


def test_each_problem_has_a_line_with_its_place_in_its_inner_loop(monkeypatch):
    terminal = watched(monkeypatch)
    run(three(), ProgressBar("toy", interval=0.0))
    drawn = frames(terminal.getvalue())
    places = [line.partition("loss")[2].split(maxsplit=1)[1] for line in drawn if line.startswith("low ")]
    expected = ["warm-up 1/2", "warm-up 2/2", *(f"inner step {i}/3" for i in (1, 2, 3, 1, 2, 3, 1))]
    assert [place.rstrip(" █▏▎▍▌▋▊▉") for place in places] == expected
    batches = [line.split()[2] for line in drawn if line.startswith("middle ")]
    assert batches == ["0"] * 4 + ["1"] * 3 + ["2"] * 2
    assert not any("inner step" in line for line in drawn if line.startswith(("middle ", "top ")))
    assert "9/9" in drawn[-1]
    assert "low 0." in drawn[-1]


def test_the_screen_shows_the_levels_while_it_runs_and_the_bar_at_the_end(monkeypatch):
    terminal = watched(monkeypatch)
    engine, bar = three(valid_step=4), ProgressBar("toy", interval=0.0)
    engine.validation = lambda: {"accuracy": 0.5}
    bar.on_run_start(engine)
    engine.callbacks.callbacks.append(bar)
    for _ in range(9):
        engine.step()
    shown = screen(terminal.getvalue())
    assert shown[:3] == [f"step {step}: accuracy 0.5" for step in (4, 8, 9)]
    assert [line.split()[0] for line in shown[3:]] == ["toy:", "top", "middle", "low"]
    bar.on_run_end(engine)
    assert [line.split()[0] for line in screen(terminal.getvalue())] == ["step", "step", "step", "toy:"]


@pytest.mark.parametrize("names", [["only"], [f"p{i}" for i in range(12)]])
def test_one_problem_or_very_many_share_the_line_of_the_bar(names, monkeypatch):
    terminal = watched(monkeypatch)
    engine = hierarchy({names[-1]: names[:-1]})
    engine.config = EngineConfig(train_iters=2, device="cpu")
    run(engine, ProgressBar("toy", interval=0.0))
    drawn = frames(terminal.getvalue())
    assert all(line.startswith("toy:") for line in drawn)
    assert f"{names[-1]} " in drawn[-1]


def test_a_run_that_goes_on_starts_where_it_was(monkeypatch):
    terminal = watched(monkeypatch)
    engine = only(10)
    for _ in range(4):
        engine.step()
    run(engine, ProgressBar("toy", interval=1e9))
    first, *_, last = frames(terminal.getvalue())
    assert "4/10" in first
    assert "10/10" in last


def test_validations_are_printed_above_and_an_error_closes_the_bar(monkeypatch):
    terminal = watched(monkeypatch)
    engine, bar = only(), ProgressBar("toy")
    bar.on_run_start(engine)
    bar.on_validation(engine, {"accuracy": torch.tensor(0.5)})
    bar.on_validation(engine, {})
    bar.on_exception(engine, KeyboardInterrupt())
    length = len(terminal.getvalue())
    bar.on_step_end(engine)
    bar.on_run_end(engine)
    assert frames(terminal.getvalue()).count("step 0: accuracy 0.5") == 1
    assert len(terminal.getvalue()) == length
