"""The example scripts run, shortened, and stay short to read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
STEPS = {"reweight_digits": 204, "three_levels": 100}  # the first steps of the upper; of the top


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(path, capsys):
    torch.set_default_dtype(torch.float32)  # as whoever runs the script has it
    result = imported(path).main(STEPS.get(path.stem, 20))  # the first argument is the length
    assert result == result  # a number
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert text.startswith('"""')
    assert 'if __name__ == "__main__":' in text
