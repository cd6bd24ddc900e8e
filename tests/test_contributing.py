"""The recipes of CONTRIBUTING.md are true: these tests follow them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of one section."""
    return re.split(r"^## ", TEXT.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]


def blocks(title: str) -> dict[str, str]:
    """The Python blocks of a section by the file that their first line names."""
    found = re.findall(r"```python\n# (\S+)\n(.*?)```", section(title), re.DOTALL)
    assert found, f"{title} shows no file"
    return dict(found)


@pytest.fixture
def package(tmp_path):
    """A copy of the package to which a recipe may add."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "tellapart", tmp_path / "tellapart", ignore=ignored))


def insert(file: Path, before: str, text: str) -> None:
    """Insert text before the only occurrence of a line in a file."""
    source = file.read_text(encoding="utf-8")
    assert source.count(before) == 1, f"{file.name}: {before!r}"
    file.write_text(source.replace(before, text + before), encoding="utf-8")


def append(file: Path, text: str) -> None:
    """Append text to a file."""
    file.write_text(file.read_text(encoding="utf-8") + "\n\n" + text, encoding="utf-8")


def run(folder: Path, *command: str) -> str:
    """Run Python in the folder that holds the copy of the package."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_added_by_the_recipe_trains_from_the_command_line(package):
    files = blocks("Add a method")
    options = package / "objectives" / "options.py"
    insert(options, "OPTIONS: dict[", files["objectives/options.py"] + "\n\n")
    insert(options, '    "simcse": SimCSEOptions,\n', '    "pull": PullOptions,\n')
    (package / "objectives" / "pull.py").write_text(files["objectives/pull.py"], encoding="utf-8")
    insert(
        package / "objectives" / "__init__.py", '    "instdisc": "InstDisc",', '    "pull": "Pull",'
    )
    presets = package / "training" / "presets" / "images.py"
    append(presets, files["training/presets/images.py"])
    insert(
        presets, "from ...objectives import (", "from ...objectives.options import PullOptions\n"
    )

    folder = package.parent
    command = ["train", "pull", "--data", "digits", "--out", "run", "--steps", "4"]
    run(folder, "-m", "tellapart", *command, "--batch-size", "32", "--objective.weight", "0.5")
    manifest = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    assert manifest["method"] == "pull"
    assert manifest["config"]["objective"] == {"weight": 0.5}
    assert manifest["step"] == 4


USE_OF_THE_MODALITY = """
import numpy as np
import tellapart as ta
from tellapart.embeddings import embed
from tellapart.objectives import SimCLROptions

rows = np.arange(64)
source = PointSource(
    name="points", all_ids=[str(i) for i in rows], all_labels=None, classes=(),
    parts={"train": rows}, fingerprint="points", points=torch.randn(64, 2),
)
config = PointConfig(steps=3, batch_size=16, objective=SimCLROptions())
trainer = ta.Trainer("simclr", config, source)
assert len([step.loss for step in trainer]) == 3
print(*embed(trainer.encoder, source).vectors.shape, config.width)
"""


def test_the_modality_of_the_recipe_trains_and_embeds(tmp_path):
    program = re.search(r"```python\n(.*?)```", section("Add a modality"), re.DOTALL)
    assert program
    (tmp_path / "points.py").write_text(program.group(1) + USE_OF_THE_MODALITY, encoding="utf-8")
    items, features, width = run(ROOT, str(tmp_path / "points.py")).split()
    assert (items, features) == ("64", width)


@pytest.mark.parametrize("title", ["Add a method", "Add a modality"])
def test_a_recipe_is_short(title):
    steps = re.findall(r"^\d+\. ", section(title), flags=re.MULTILINE)
    assert 2 <= len(steps) <= 10


@pytest.mark.parametrize("title", ["The tree", "Add a method", "Add a modality"])
def test_the_files_that_a_recipe_names_exist(title):
    """`objectives/NAME.py` and its like stand for the file that the reader writes."""
    named = set(re.findall(r"`((?:[a-z_]+/)+[A-Za-z_]*(?:\.[a-z]+)?)`", section(title)))
    named = {name for name in named if "NAME" not in name}
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "tellapart" / name).exists()
    ]
    assert not missing


def test_what_a_recipe_asks_for_was_done_for_every_method():
    """Preset, contract case and page exist for each method; the list of steps is not outdated."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cases import CASES

    from tellapart.objectives import METHODS
    from tellapart.training.presets import PRESETS

    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for method in METHODS:
        assert any(name.startswith(f"{method}_") for name in PRESETS), method
        assert (ROOT / "docs" / "objectives" / f"{method}.md").exists(), method
        assert f"objectives/{method}.md" in site, method
    texts_only = {
        "simcse"
    }  # sentences have contract tests of their own, tests/objectives/test_simcse.py
    assert {method for method, _ in CASES.values()} | texts_only == set(METHODS)


def test_the_words_link_to_the_glossary():
    assert "docs/concepts/index.md" in section("Words")
    glossary = (ROOT / "docs" / "concepts" / "index.md").read_text(encoding="utf-8")
    for word in re.findall(r"\*\*(\w+)\*\*", section("Words")):
        assert f"**{word}" in glossary, word
