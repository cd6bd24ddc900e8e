"""The documents run, and the public names are the ones promised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tellapart

ROOT = Path(__file__).resolve().parent.parent


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_public_names_are_sorted_and_there():
    assert tellapart.__all__ == sorted(tellapart.__all__)
    assert all(getattr(tellapart, name).__doc__ for name in tellapart.__all__ if name != "__version__")


@pytest.mark.parametrize("block", _blocks("README.md", "python"))
def test_python_of_the_readme_runs(block, tmp_path):
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tutorial_runs(tmp_path):
    code = "\n".join(_blocks("docs/tutorial.md", "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "encoder" / "model.safetensors").exists()
    assert (tmp_path / "report.html").exists()


def test_commands_of_the_documents_are_verbs():
    from tellapart.cli import VERBS

    pages = ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
    said = {v for page in pages for v in re.findall(r"^\s*tellapart (\w+)", (ROOT / page).read_text(), re.MULTILINE)}
    assert said <= VERBS.keys()
    assert set(VERBS) - {"demo"} <= said


def test_importing_tellapart_loads_nothing_heavy_but_torch():
    code = "import sys, tellapart; print(sorted({'timm', 'sklearn', 'torchvision', 'scipy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_import_only_from_files_above_them():
    """The house of CONTRIBUTING.md: data flows from top to bottom."""
    rooms = """
        version errors allocator distributed tiled labelled losses nearest geometry mutual_information memory noise data
        views encoders objectives cards run console training presets settings embeddings curation evaluation watching
        index page sheet comparison subjects embedding searching thorough reading judging detecting reporting
        inspection_images duplicates inspection_contents inspection inspection_page explorer standalone
        standalone_images exporting embedder verbs demo arguments cli __main__
    """
    order = rooms.split()
    for file in (ROOT / "tellapart").rglob("*.py"):
        room = file.relative_to(ROOT / "tellapart").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        depth = len(file.relative_to(ROOT / "tellapart").parts)
        for dots, module, names in re.findall(r"^\s*from (\.+)([\w.]*) import (.+)$", file.read_text(), re.MULTILINE):
            if len(dots) != depth:
                continue
            for target in [module.split(".")[0]] if module else re.findall(r"\w+", names):
                if target in order:
                    assert order.index(target) <= order.index(room), f"{room} imports {target}, which stands below it"
