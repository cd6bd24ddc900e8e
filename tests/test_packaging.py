"""The wheel holds what an installation needs and nothing else; the metadata are complete."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import tellapart

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [name for name in ("build", "setuptools") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if NEEDED:
        pytest.skip(f"building a wheel needs {' and '.join(NEEDED)}")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tellapart", folder / "tellapart", ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_every_module_and_the_data_files_and_nothing_else(wheel):
    source = {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "tellapart").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == source
    assert "tellapart/py.typed" in packed
    assert any(name.endswith(".js") for name in packed)


def test_the_metadata_of_the_wheel_are_complete(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    fields = message_from_bytes(wheel.read(name))
    assert fields["Version"] == tellapart.__version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Author"] == "The tellapart authors"
    for field in (
        "Summary",
        "Keywords",
        "Requires-Python",
        "Classifier",
        "Description-Content-Type",
    ):
        assert fields[field], field
    assert "Typing :: Typed" in fields.get_all("Classifier")
    entry_points = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert "tellapart = tellapart.cli:main" in wheel.read(entry_points).decode()


def test_the_citation_has_the_version_of_the_package():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {tellapart.__version__}" in lines


def test_oldest_and_newest_python_are_tested():
    """The workflow runs both ends of the range that the classifiers state."""
    minors = sorted(
        int(c.rpartition(".")[2]) for c in PROJECT["classifiers"] if "Python :: 3." in c
    )
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert f'["3.{minors[0]}", "3.{minors[-1]}"]' in workflow
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in workflow


def test_extras_that_messages_and_documents_name_exist():
    import re

    extras = set(PROJECT["optional-dependencies"])
    files = [
        *(ROOT / "tellapart").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
    ]
    named = {
        name.strip()
        for file in files
        for group in re.findall(r"tellapart\[([a-z, ]+)\]", file.read_text(encoding="utf-8"))
        for name in group.split(",")
    }
    assert named <= extras, named - extras
    assert {"audio", "text"} <= named
