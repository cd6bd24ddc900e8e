"""docs/plug-ins.md runs block by block; it registers a kind of data from outside the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import tellapart as ta
from tellapart.data import modality_of, register_modality
from tellapart.data.kinds import KINDS
from tellapart.data.modality import MODALITIES
from tellapart.errors import ConfigError
from tellapart.modalities import BaseModality
from tellapart.runtime import plugins

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/plug-ins.md").read_text()
BLOCKS = re.findall(r'```python(?: title="(.*?)")?\n(.*?)```', PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder that the page runs in, and the names that it defines."""
    folder = tmp_path_factory.mktemp("page")
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    module = sys.modules["page"] = types.ModuleType("page")
    yield folder, vars(module)
    os.chdir(before)
    sys.path.remove(str(folder))
    for name in ("page", "tables"):
        sys.modules.pop(name, None)
    MODALITIES.pop("tables", None)
    KINDS.pop("tables", None)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_example_of_the_page_runs(page, number):
    folder, names = page
    file, code = BLOCKS[number]
    if file:
        (folder / file).write_text(code)
        return
    exec(compile(code, f"docs/plug-ins.md, {number}", "exec", dont_inherit=True), names)


def test_the_toy_kind_of_data_is_learned_scored_and_searched(page):
    _, names = page
    row = next(r for r in names["scores"]["scores"] if r == "trained features")
    accuracy = names["scores"]["scores"][row]
    assert any(cell["value"] > 0.8 for cell in accuracy.values())
    assert len(names["vectors"]) == 120
    assert {n["id"] for n in names["neighbours"][0]} <= set(names["source"].ids) - {"table-0"}
    assert names["found"]["counts"]["items"] == 120
    html = (page[0] / "tables.html").read_text()
    previews = [modality_of("tables").preview(names["source"], i).words[:30] for i in range(120)]
    assert sum(words in html for words in previews) >= 8  # the report shows the tables themselves


def test_the_networks_views_and_objectives_of_the_page_were_used(page):
    folder, names = page
    run = ta.load("runs/net")
    assert names["features"].shape == (2, 32)
    assert type(run.encoder.backbone.model).__name__ == "Net"
    config = json.loads((folder / "runs/views/run.json").read_text())["config"]
    assert config["view"] == "page:upside_down"
    about = json.loads((folder / "runs/prototypes/run.json").read_text())
    assert about["method"] == "page:Prototypes"
    assert about["config"]["objective"] == {"temperature": 0.2, "prototypes": 8}
    state = torch.load("runs/prototypes/checkpoints/last.pt", weights_only=True)
    assert state["objective"]["rows.weight"].shape == (8, 128)


def test_a_command_in_a_new_process_knows_a_registered_kind(page):
    folder, names = page
    values, labels = names["source"].values, names["source"].labels
    with open(folder / "cells.tables", "wb") as file:
        np.savez(file, values=values, labels=labels)
    words = "train simclr --data cells.tables --out runs/cli --steps 4 --batch-size 16 --forget 0.3"
    environment = os.environ | {"TELLAPART_PLUGINS": "tables", "PYTHONPATH": str(ROOT)}
    for command in (
        f"{words} --threads 1",
        "eval runs/cli --quick",
        "search runs/cli table-3 --k 2",
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tellapart", *command.split()],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert json.loads((folder / "runs/cli/run.json").read_text())["data"]["kind"] == "tables"


def test_names_on_the_command_line_and_a_run_that_never_imports_them(page, tmp_path):
    folder, _ = page
    marker = tmp_path / "imported"
    (tmp_path / "own.py").write_text(
        f"open({str(marker)!r}, 'a').write('x')\n"
        "from torch import nn\n"
        "def make(channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.ReLU())\n"
        "def views(batch, generator):\n"
        "    return batch.float() / 255\n"
        "def loss(a, b):\n"
        "    return (a - b).square().sum(1).mean()\n"
    )
    data = str(folder / "images.npz")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(command):
        return subprocess.run(
            [sys.executable, "-m", "tellapart", *command.split()],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    options = "--encoder own:make --view own:views --steps 3 --batch-size 8 --threads 1"
    done = run(f"train own:loss --data {data} --out run {options}")
    assert done.returncode == 0, done.stderr
    marker.unlink()
    done = run("embed run --out a.npz")
    assert done.returncode == 2
    assert "own:make is not known here" in done.stderr
    assert not marker.exists()
    assert run("embed run --out a.npz --encoder own:make").returncode == 0
    assert marker.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "no_such_module:make"}, "cannot be imported"),
        ({"encoder": "json:nothing"}, "has no 'nothing'"),
        ({"encoder": torch.nn.Linear(3, 2)}, "fails on a view of shape"),
        ({"encoder": 5}, "neither an nn.Module"),
        ({"encoder": lambda channels: None}, "made NoneType"),
        ({"encoder": torch.nn.Flatten(0)}, "must give features"),
        ({"views": lambda image: 3}, "must make tensors"),
        ({"views": lambda batch, generator: batch[:1]}, "made 1 views of"),
        ({"view": "mymodule"}, "module:object"),
        ({"views": []}, "empty list"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path, options, words):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    with pytest.raises(ConfigError, match=words):
        ta.train(
            "simclr", data=images, out=tmp_path / "r", steps=1, batch_size=4, threads=1, **options
        )


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (5, "neither a class"),
        (dict, "neither a class"),
        ("json:dumps_nothing", "has no"),
        (lambda a, b: a, "one value"),
    ],
)
def test_what_is_no_objective_is_one_clear_error(tmp_path, method, words):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    with pytest.raises(ConfigError, match=words):
        ta.train(method, data=images, out=tmp_path / "r", steps=1, batch_size=4, threads=1)


def test_built_in_kinds_cannot_be_replaced_and_unknown_ones_are_named():
    class Wrong(BaseModality):
        kind = "images"

    with pytest.raises(ConfigError, match="built in"):
        register_modality(Wrong())
    with pytest.raises(ConfigError, match="imagez"):
        modality_of("imagez")


def test_a_network_passed_to_train_is_copied(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    before = [p.clone() for p in network.parameters()]
    ta.train(
        "simclr", data=images, encoder=network, out=tmp_path / "r", steps=2, batch_size=4, threads=1
    )
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert plugins.is_name(json.loads((tmp_path / "r/run.json").read_text())["config"]["encoder"])
