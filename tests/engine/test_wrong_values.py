"""A value of a file that its class cannot take is shown, at its own key."""

from __future__ import annotations

import pytest

from .test_build import refusal
from .toy import YAML


@pytest.mark.parametrize(
    ("value", "place"),
    [("abc", "override 'problems.lower.optimizer.lr=abc'"), ("'0.1'", "override 'problems.lower.optimizer.lr='0.1''")],
)
def test_a_number_that_is_a_text_is_shown_where_it_was_given(tmp_path, value, place):
    words = refusal(tmp_path, f"problems.lower.optimizer.lr={value}")
    assert words.startswith(f"{place}: problems.lower.optimizer.lr: ")
    assert f"lr is the text '{value.strip(chr(39))}'" in words
    line = YAML[: YAML.index("lr: 0.5")].count("\n") + 1
    assert f"toy.yaml:{line}: problems.lower.optimizer.lr: " in refusal(tmp_path, yaml=YAML.replace("0.5}", "'0.5'}"))


def test_a_key_without_a_value_is_not_a_missing_one(tmp_path):
    yaml = YAML.replace("module: {class: code.py:Scalar}\n", "module:\n")
    words = refusal(tmp_path, yaml=yaml)
    assert "problems.lower.module: problem 'lower': the key has no value, and the `optimizer` beside it" in words
    assert "needs a `module` beside it" in refusal(tmp_path, yaml=yaml.replace("    module:\n", ""))
