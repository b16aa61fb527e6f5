"""A run folder is read whatever state it was left in, and nothing that cannot be read goes unsaid."""

from __future__ import annotations

import json
import math

import pytest

from multilevel.engine.reporting.records import read_run

from .folder import TIMING, of_problem, of_validation, usual, write_run, write_whole_run


def test_everything_in_a_whole_folder_is_read(tmp_path):
    run = read_run(write_whole_run(tmp_path))
    assert run.name == "demo"
    assert run.levels() == ["reweight", "classifier"]
    assert (run.steps, run.seconds) == (40, 4.0)
    assert run.problems["classifier"]["accuracy"][4] == 0.75
    assert list(run.problems["reweight"]["loss"]) == [5, 10, 15, 20, 25, 30, 35, 40]
    assert run.validation == {"test accuracy": {10: 0.95, 20: 0.975, 30: 1 - 0.5 / 30, 40: 0.9875}}
    assert run.report == {"test accuracy": 0.9875}
    assert run.timing == TIMING
    assert run.audit is not None
    assert run.finished
    assert not run.remarks


def test_an_empty_folder_is_an_empty_run(tmp_path):
    run = read_run(tmp_path)
    assert (run.config, run.loaded, run.graph(), run.error, run.audit) == (None, None, None, None, None)
    assert (run.problems, run.validation, run.report, run.timing, run.remarks) == ({}, {}, {}, {}, [])
    assert run.name == tmp_path.name
    assert not run.finished


def test_texts_that_stand_for_numbers_are_numbers_and_nothing_else_is(tmp_path):
    metrics = {"a": "nan", "b": "inf", "c": "-inf", "d": 10**400, "e": "good", "f": True, "g": [1.0], "h": None}
    curves = read_run(write_run(tmp_path, [of_problem("x", 1, **metrics, i={"j": 2.0})])).problems["x"]
    assert sorted(curves) == ["a", "b", "c", "d", "i/j"]
    assert math.isnan(curves["a"][1])
    assert [curves[name][1] for name in ("b", "c", "d", "i/j")] == [math.inf, -math.inf, math.inf, 2.0]


def test_half_a_last_line_is_left_out_without_a_word(tmp_path):
    path = write_run(tmp_path) / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    run = read_run(tmp_path)
    assert list(run.validation["test accuracy"]) == [10, 20, 30]
    assert not run.remarks


@pytest.mark.parametrize("bad", ['{"step": 3, "sec{"step": 4}', "[]", "3", '{"step": "x"}', '{"step": 1}', "\udcff"])
def test_a_damaged_line_in_the_middle_is_left_out_and_said(tmp_path, bad):
    good = [json.dumps(line) for line in usual(3)]
    text = "\n".join([good[0], bad, *good[1:], ""])
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(text, errors="surrogateescape")
    run = read_run(tmp_path)
    assert list(run.problems["classifier"]["loss"]) == [1, 2, 3]
    (remark,) = run.remarks
    assert "line 2" in remark


def test_what_a_resumed_run_took_again_replaces_what_it_had_written_before(tmp_path):
    lines = [of_problem("x", step, loss=1.0) for step in range(1, 9)] + [of_validation(8, accuracy=0.0)]
    again = [of_problem("x", step, loss=2.0) for step in range(5, 7)]
    run = read_run(write_run(tmp_path, [*lines, *again]))
    assert run.problems["x"]["loss"] == {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 2.0, 6: 2.0}
    assert run.validation == {"accuracy": {}}
    assert run.steps == 6


@pytest.mark.parametrize("name", ["report", "timing", "audit"])
@pytest.mark.parametrize(("content", "word"), [("{", "not JSON"), ("[1]", "no JSON object")])
def test_files_that_are_not_json_are_said(tmp_path, name, content, word):
    run = read_run(write_whole_run(tmp_path, **{name: content}))
    (remark,) = run.remarks
    assert word in remark
    assert f"{name}.json" in remark


@pytest.mark.parametrize("times", [{"problems": None}, {"problems": {"x": 3}}, {"other": 1}])
def test_times_of_another_shape_are_no_times(tmp_path, times):
    assert not any(read_run(write_whole_run(tmp_path, timing=times)).timing.values())


def test_settings_of_another_version_are_said_and_the_rest_is_read(tmp_path):
    run = read_run(write_run(tmp_path, config="problems: {{a: {{clas: x}}}}"))
    (remark,) = run.remarks
    assert "did you mean 'class'" in remark
    assert run.config == "problems: {a: {clas: x}}"
    assert run.levels() == ["classifier", "reweight"]


def test_a_run_that_failed_when_it_was_to_go_on_is_not_finished(tmp_path):
    run = read_run(write_whole_run(tmp_path, error="Traceback\nRuntimeError: boom\n"))
    assert not run.finished
    assert run.error is not None
