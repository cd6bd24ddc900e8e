"""The documents run, and the public names are the ones promised."""

from __future__ import annotations

import ast
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
    assert all(
        getattr(tellapart, name).__doc__ for name in tellapart.__all__ if name != "__version__"
    )


def test_the_output_shown_in_the_readme_is_what_its_program_prints(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program, shown = re.search(r"```python\n(.*?)```\n+```\n(.*?)```", text, re.DOTALL).groups()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == shown, done.stderr


PAGES = [
    "docs/api/training.md",
    "docs/howto/few-labels.md",
    "docs/howto/scikit-learn.md",
    "docs/howto/search.md",
    "docs/scenes.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_pages_runs(page, tmp_path):
    code = "\n".join(_blocks(page, "python"))
    assert code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_tutorial_runs(tmp_path):
    code = "\n".join(_blocks("docs/tutorial.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "encoder" / "model.safetensors").exists()
    assert (tmp_path / "report.html").exists()


def test_commands_of_the_documents_are_verbs():
    from tellapart.cli import VERBS

    pages = ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
    said = {
        v
        for page in pages
        for v in re.findall(r"^\s*tellapart (\w+)", (ROOT / page).read_text(), re.MULTILINE)
    }
    assert said <= VERBS.keys()
    assert set(VERBS) - {"demo"} <= said


def test_importing_tellapart_loads_nothing_heavy():
    heavy = "{'torch', 'timm', 'sklearn', 'torchvision', 'scipy', 'numpy', 'rich', 'tyro'}"
    code = f"import sys, tellapart; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ROOMS = [
    "__main__",
    "cli",
    "demo",
    "api",
    "modalities",
    "reports",
    "exporters",
    "curation",
    "evaluation",
    "embeddings",
    "training",
    "objectives",
    "encoders",
    "views",
    "data",
    "functional",
    "runtime",
    "errors",
]


def _imports(file: Path) -> set[str]:
    """The modules of tellapart that a file names in any import, at its top or inside a function."""
    package = ["tellapart", *file.relative_to(ROOT / "tellapart").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("tellapart.")}


def test_a_room_imports_only_from_rooms_below_it():
    """The drawing in CONTRIBUTING.md: data flow upwards, imports point downwards."""
    upward = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "tellapart").rglob("*.py")
        if (room := file.relative_to(ROOT / "tellapart").parts[0].removesuffix(".py")) != "__init__"
        for name in _imports(file)
        if (target := name.split(".")[1]) in ROOMS and ROOMS.index(target) < ROOMS.index(room)
    ]
    assert not upward, "\n".join(upward)


def test_every_room_stands_in_the_drawing():
    there = {
        p.name.removesuffix(".py")
        for p in (ROOT / "tellapart").iterdir()
        if p.suffix in ("", ".py")
    }
    assert there - {"__init__", "__pycache__"} == set(ROOMS)
