"""The page of a run says everything that its folder has, escapes it, and needs nothing from anywhere else."""

from __future__ import annotations

import json
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from multilevel.engine.reporting import commands
from multilevel.engine.reporting.page import page
from multilevel.engine.reporting.records import read_run
from multilevel.hypergrad.errors import ConfigError

from .folder import AUDIT, CONFIG, EVIL, PIXEL, TIMING, of_problem, of_validation, write_run, write_whole_run

pytest.importorskip("matplotlib")

VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Elements, attributes and text of a page; every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Reader:
    return Reader(page(read_run(path)))


def test_everything_of_a_whole_run_is_in_its_page(tmp_path):
    found = read(write_whole_run(tmp_path, error="Traceback\nValueError: once\n"))
    for words in (
        "demo", "A demo", "failed", "ValueError: once",  # what and how
        "test accuracy 0.9875",  # the result
        "cg(iterations=7), unroll_steps 5", "SGD, lr 0.02",  # the graph
        "38 % of 8 s in level steps was spent on hypergradients", "75 %",  # timing
        "as configured 0.9500 0.3 0.73 1.5 ms 1.00 MiB 1 7 1", "points the right way",  # audit
        "name: \"demo\"",  # settings
    ):  # fmt: skip
        assert words in found.text
    assert found.tags["h1"] == 1
    assert found.tags["h2"] == 7
    assert found.tags["svg"] == 1 + 4


def test_compiling_is_told_where_anything_was_compiled(tmp_path):
    assert "update total" in read(write_whole_run(tmp_path / "eager")).text
    timing = {name: {**times, "compile": 6.0} for name, times in TIMING.items()}
    text = read(write_whole_run(tmp_path / "compiled", timing={"problems": timing})).text
    assert "update compiling total" in text
    assert "15 % of 20 s in level steps was spent on hypergradients" in text


def test_the_page_asks_for_nothing(tmp_path):
    (write_whole_run(tmp_path) / "weights.png").write_bytes(PIXEL)
    text = page(read_run(tmp_path))
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    found = Reader(text)
    for _, name, value in found.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#"))
        assert not name.startswith("on")
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    assert found.tags["img"] == 1
    ids = Counter(value for _, name, value in found.attributes if name == "id")
    assert max(ids.values()) == 1


def test_what_a_run_says_is_text_and_never_markup(tmp_path):
    config = CONFIG.replace("reweight:", f"{json.dumps(EVIL)}:").replace("[reweight", f"[{json.dumps(EVIL)}")
    lines = [of_problem(EVIL, 1, **{EVIL: 1.0}), of_validation(1, **{EVIL: 2.0})]
    row = {**AUDIT["rows"][0], "label": EVIL, "gradients": EVIL}
    audit = {"upper": EVIL, "verdict": [EVIL], "rows": [row, {"label": EVIL, "failure": EVIL}]}
    timing = {"problems": {EVIL: {"steps": 1, "forward": 1.0}}}
    write_run(
        tmp_path, lines, config=config, name="<b>&", description=EVIL, report={EVIL: 1.0}, audit=audit, timing=timing,
        error=EVIL,
    )  # fmt: skip
    run = read_run(tmp_path)
    assert run.loaded is not None
    assert EVIL in run.levels()
    found = read(tmp_path)
    assert not {"script", "img", "b"} & set(found.tags)
    assert found.text.count("<script>") >= 10
    assert not any(name.startswith("on") for _, name, _ in found.attributes)


def test_the_page_is_the_same_every_time(tmp_path):
    run = read_run(write_whole_run(tmp_path))
    assert page(run) == page(read_run(tmp_path))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config": None}, "There is no readable config.yaml"),
        ({"config": None}, "There is no config.yaml"),
        ({"lines": []}, "No metrics were written."),
        ({}, "There is no timing.json: the run has not come to its end."),
        ({"report": {}}, "The engine of the run reports no final metrics."),
        ({}, "It last wrote at step 40"),
        ({}, "The last validation found: test accuracy 0.9875"),
        ({"timing": "{"}, "timing.json is not JSON"),
        ({"config": "problems: {{}}"}, "config.yaml is not an experiment of this version"),
        ({"audit": {"rows": [None, {}, {"label": "odd", "cosine": "high"}]}}, "odd - - -"),
        ({"audit": {"verdict": 3}}, "Audit"),
        ({"timing": {"problems": {"classifier": {}}}}, "0 % of 0 in level steps"),
    ],
)
def test_what_is_missing_or_damaged_is_said(tmp_path, files, words):
    assert words in read(write_run(tmp_path, **files)).text


def test_an_empty_folder_has_a_page(tmp_path):
    assert "unfinished" in read(tmp_path).text


def test_a_run_that_can_go_on_says_how(tmp_path):
    (write_run(tmp_path) / "checkpoints").mkdir()
    assert "multilevel resume" not in read(tmp_path).text
    (tmp_path / "checkpoints" / "step-00000020.pt").touch()
    assert f"multilevel resume {tmp_path}" in read(tmp_path).text


def test_pictures_of_the_run_are_in_the_page_unless_they_are_heavy_or_its_own(tmp_path):
    write_whole_run(tmp_path)
    (tmp_path / "learned_weights.png").write_bytes(PIXEL)
    (tmp_path / "heavy.png").write_bytes(PIXEL + bytes(3_000_000))
    commands.plot([tmp_path])
    found = read(tmp_path)
    assert [value for tag, name, value in found.attributes if (tag, name) == ("img", "alt")] == ["learned weights"]


def test_where_the_page_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole_run(Path("a"))
    assert commands.report(Path("a")) == Path("a/report.html")
    assert commands.report(Path("a"), Path("b.html")) == Path("b.html")
    assert Path("a/report.html").read_bytes() == Path("b.html").read_bytes()
    with pytest.raises(ConfigError, match="missing"):
        commands.report(Path("a"), Path("missing/b.html"))


def test_without_matplotlib_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"multilevel\[examples\]"):
        commands.report(write_whole_run(tmp_path))
