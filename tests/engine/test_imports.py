"""What a YAML file may name, and what stays out of its reach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multilevel.configs.config import Config
from multilevel.engine.imports import Importer
from multilevel.hypergrad.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "experiment"
    inner.mkdir()
    (inner / "mine.py").write_text(
        "import os\n"
        "import json\n"
        "from os.path import join\n"
        "from torch.nn import Linear\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Thing:\n"
        "    size: int = 3\n"
        "def make():\n"
        "    return Thing()\n"
        "constant = 3\n"
    )
    (inner / "broken.py").write_text("undefined_name\n")
    (tmp_path / "outside.py").write_text("class Thing: pass\n")
    (inner / "link.py").symlink_to(tmp_path / "outside.py")
    return inner


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch.nn.Linear", torch.nn.Linear),
        ("torch.optim.SGD", torch.optim.SGD),
        ("torch.optim.lr_scheduler.StepLR", torch.optim.lr_scheduler.StepLR),
        ("torch.utils.data.DataLoader", torch.utils.data.DataLoader),
        ("multilevel.configs.config.Config", Config),
    ],
)
def test_names_of_torch_and_of_this_library(name, expected, tmp_path):
    assert Importer(tmp_path).find(name) is expected


def test_a_file_beside_the_yaml_is_imported_once(folder):
    thing = Importer(folder).find("mine.py:Thing")
    assert thing().size == 3
    assert Importer(folder).find("mine.py:Thing") is thing
    assert type(Importer(folder).find("mine.py:make")()) is thing
    assert Importer(folder).find("mine.py:Linear") is torch.nn.Linear


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os.system", ["may not be imported", "--allow-import os"]),
        ("builtins.eval", ["may not be imported"]),
        ("sklearn.svm.SVC", ["may not be imported", "--allow-import sklearn"]),
        ("torch.load", ["from torch, only classes of torch.nn"]),
        ("torch.os.system", ["from torch, only classes of torch.nn"]),
        ("torch.hub.load", ["from torch, only classes of torch.nn"]),
        ("torch.nn.functional.relu", ["not a class"]),
        ("torch.nn.Linear.forward", ["not a class"]),
        ("torch.optim.optimizer.warnings.warn", ["warnings"]),
        ("torch.optim.optimizer.functools.partial", ["functools"]),
        ("torch.optim.optimizer.OrderedDict", ["not defined in torch.optim"]),
        ("torch.optim.lr_scheduler.Counter", ["not defined in torch.optim, but in collections"]),
        ("torch.nn.Linear.__init__", ["private"]),
        ("torch.optim.Sgd", ["has no 'Sgd'", "did you mean 'SGD'"]),
        ("torch.nn", ["is a module", "class or a function"]),
        ("multilevel.engine.imports.importlib.import_module", ["importlib", "not part of multilevel"]),
        ("multilevel.engine.imports.Path", ["not defined in multilevel"]),
        ("multilevel.configs.config.Config.model_fields", ["is a dict", "class or a function"]),
        ("multilevel.no_such_thing.Class", ["has no 'no_such_thing'"]),
        ("multilevelx.Class", ["may not be imported"]),
        ("SGD", ["dotted name"]),
        ("torch.optim.SGD()", ["dotted name"]),
        ("", ["dotted name"]),
        ("mine.py:Thin", ["mine.py has no 'Thin'", "did you mean 'Thing'"]),
        ("mine.py:constant", ["is a int", "class or a function"]),
        ("mine.py:os", ["is a module"]),
        ("mine.py:join", ["only imported there, from posixpath", "define it in mine.py"]),
        ("mine.py:Thing.size", ["file.py:Name"]),
        ("mine.txt:Thing", ["file.py:Name"]),
        ("min.py:Thing", ["no file min.py", "did you mean 'mine.py'"]),
        ("broken.py:Thing", ["broken.py raised NameError", "undefined_name"]),
        ("../outside.py:Thing", ["outside the folder"]),
        ("/etc/passwd.py:Thing", ["outside the folder"]),
        ("link.py:Thing", ["outside the folder"]),
    ],
)
def test_everything_else_is_refused_with_the_way_out(name, words, folder):
    with pytest.raises(ConfigError) as caught:
        Importer(folder).find(name)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_allowing_a_package_allows_what_it_defines_itself(tmp_path):
    importer = Importer(tmp_path, ("json",))
    assert importer.find("json.JSONDecoder").__name__ == "JSONDecoder"
    with pytest.raises(ConfigError, match="not part of json"):
        importer.find("json.decoder.re.compile")
    with pytest.raises(ConfigError, match="importing no_such_package raised ModuleNotFoundError"):
        Importer(tmp_path, ("no_such_package",)).find("no_such_package.Name")
