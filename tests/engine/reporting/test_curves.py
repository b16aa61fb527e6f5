"""Curves show every metric of every level once, on an axis that suits its values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from multilevel.engine.reporting import commands
from multilevel.engine.reporting.curves import draw_curves
from multilevel.engine.reporting.folders import read_groups
from multilevel.hypergrad.errors import ConfigError

from .folder import of_problem, usual, write_run

pytest.importorskip("matplotlib")


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_panel_for_each_metric_and_a_heading_for_each_level(tmp_path):
    figure = draw_curves(read_groups([write_run(tmp_path)]))
    assert titles(figure) == ["loss", "loss", "accuracy", "test accuracy"]
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert list(heights)[2:] == ["reweight", "classifier", "validation"]
    assert sorted(heights.values(), reverse=True) == list(heights.values())


@pytest.mark.parametrize("count", range(1, 9))
def test_panels_do_not_overlap_and_stay_in_the_figure(tmp_path, count):
    metrics = {f"metric {i}": float(i) for i in range(count)}
    figure = draw_curves(read_groups([write_run(tmp_path, [of_problem("a", 1, **metrics), of_problem("b", 1, x=1.0)])]))
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == count + 1
    assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_positive_values_over_two_decades_are_on_a_logarithmic_axis(tmp_path):
    lines = [
        of_problem("a", 1, wide=1e-3, narrow=0.5, signed=-1e-3),
        of_problem("a", 2, wide=1.0, narrow=1.0, signed=1e3),
    ]
    figure = draw_curves(read_groups([write_run(tmp_path, lines)]))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]


def test_several_runs_have_a_line_each_in_colours_of_their_own_and_a_legend(tmp_path):
    paths = [write_run(tmp_path / f"run{i}", usual(20, scale=i + 1.0)) for i in range(3)]
    figure = draw_curves(read_groups(paths))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["run0", "run1", "run2"]
    for axes in figure.axes:
        assert len({line.get_color() for line in axes.lines}) == 3
    top = max(axes.get_position().y1 for axes in figure.axes)
    assert legend.get_window_extent().y0 > top * figure.bbox.height


def test_seeds_are_one_line_in_a_band(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"seed{seed}", usual(20, scale=seed + 1.0))
    figure = draw_curves(read_groups([tmp_path]))
    reweight = figure.axes[0]
    assert len(reweight.lines) == 1
    assert reweight.lines[0].get_ydata().tolist() == [2 / 5, 2 / 10, 2 / 15, 2 / 20]
    assert len(reweight.collections) == 1
    assert any("mean of 3 seeds" in text.get_text() for text in figure.texts)


def test_a_metric_that_never_was_finite_is_said(tmp_path):
    figure = draw_curves(
        read_groups([write_run(tmp_path, [of_problem("a", 1, loss="nan"), of_problem("a", 2, loss="inf")])])
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["never a finite number"]
    assert any("not finite" in text.get_text() for text in figure.texts)


def test_names_are_no_formulas(tmp_path):
    lines = [of_problem("a $\\frac$", 1, **{"$\\frac$": 1.0, "a$_1$": 2.0})]
    paths = [write_run(tmp_path / name, lines, name="$x$") for name in ("$\\frac$", "b")]
    assert commands.plot(paths, tmp_path / "curves.png").stat().st_size > 0
    assert commands.plot(paths[:1], tmp_path / "curves.png").stat().st_size > 0


def test_a_title_that_is_too_long_ends_in_dots(tmp_path):
    lines = [of_problem("a", 1, **{"long " * 20: 1.0, "b": 1.0, "c": 1.0})]
    figure = draw_curves(read_groups([write_run(tmp_path, lines)]))
    assert titles(figure)[0].endswith("…")


def test_only_the_metrics_asked_for(tmp_path):
    groups = read_groups([write_run(tmp_path)])
    assert titles(draw_curves(groups, ["loss"])) == ["loss", "loss"]
    with pytest.raises(ConfigError, match="no run has 'los'; did you mean 'loss'\\? there are: accuracy, loss, test"):
        draw_curves(groups, ["los"])


def test_where_the_picture_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(Path(name)) for name in ("a", "b")]
    assert commands.plot(runs[:1]) == Path("a/curves.png")
    assert commands.plot(runs) == Path("curves.png")
    assert commands.plot(runs, Path("both.svg"), ["loss"]) == Path("both.svg")
    assert Path("curves.png").read_bytes()[1:4] == b"PNG"
    assert b"<svg" in Path("both.svg").read_bytes()


def test_a_picture_that_cannot_be_written_is_a_config_error(tmp_path):
    run = write_run(tmp_path)
    for path in (tmp_path / "x.xyz", tmp_path / "missing" / "x.png"):
        with pytest.raises(ConfigError, match=path.name):
            commands.plot([run], path)


def test_a_run_without_metrics_has_nothing_to_draw(tmp_path):
    with pytest.raises(ConfigError, match="nothing to draw"):
        commands.plot([write_run(tmp_path, [])])


def test_without_matplotlib_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"multilevel\[examples\]"):
        commands.plot([write_run(tmp_path)])
