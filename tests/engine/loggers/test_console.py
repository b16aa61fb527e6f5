"""Lines for people who read a terminal or a log."""

from __future__ import annotations

import torch
from tqdm import tqdm

from multilevel.engine.loggers.console import Console

from .fakes import fake_engine, run


def test_one_line_a_record_on_standard_error(capsys):
    run(fake_engine(lower=-1), Console(), until=10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "step 5  validation  accuracy 0.1562",
        "step 10  lower  loss 2.5",
        "step 10  validation  accuracy 0.3125",
    ]


def test_nothing_is_printed_where_there_is_no_number(capsys):
    logger, engine = Console(), fake_engine(lower=-1)
    logger.on_run_start(engine)
    logger.on_validation(engine, {"confusion": torch.ones(2, 2)})
    assert capsys.readouterr().err == ""


def test_a_progress_bar_stays_below(capsys):
    with tqdm(total=10, mininterval=0, ncols=60, bar_format="BAR") as bar:
        run(fake_engine(lower=-1), Console(), until=5)
        bar.refresh()
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "step 5  validation  accuracy 0.1562" in lines
