"""What is built is what is meant: one clean package, its experiments and type marker in it, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "dist", "site", "*_cache*")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist, built from a copy whose folder name has a dot and a hyphen."""
    source = tmp_path_factory.mktemp("source") / "my-repo.x"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    tops = {name.split("/")[0] for name in names(built)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"multilevel"}
    folders = {name.split("/")[1] for name in names(built) if name.count("/") > 1 and name.startswith("multilevel/")}
    assert folders == {"configs", "engine", "hypergrad", "problems"}


def test_the_wheel_holds_experiments_and_the_type_marker(built: Path) -> None:
    shipped = {f"multilevel/configs/experiments/{p.name}" for p in (ROOT / "configs" / "experiments").glob("*.yaml")}
    assert shipped
    assert shipped | {"multilevel/py.typed"} <= names(built)


def test_every_module_is_in_the_wheel(built: Path) -> None:
    folders = ("configs", "engine", "hypergrad", "problems")
    modules = {f"multilevel/{p.relative_to(ROOT).as_posix()}" for f in folders for p in (ROOT / f).rglob("*.py")}
    assert modules <= names(built)


def test_the_sdist_can_be_tested(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        members = {name.partition("/")[2] for name in opened.getnames()}
    assert {"setup.cfg", "Makefile", "constraints.txt", "README.md", "LICENSE", "tests/conftest.py"} <= members


def test_the_wheel_imports_from_anywhere(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "import multilevel, multilevel.problems.recipes; print(multilevel.__file__); multilevel.Engine"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_base_dependencies_are_the_promised_ones() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    needed = {line.split(">")[0] for line in config["options"]["install_requires"].split()}
    assert needed == {"torch", "networkx", "pyyaml", "tqdm", "pydantic", "typer"}
