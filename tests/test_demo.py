"""The demo writes pictures, trains, scores, draws, and prints one sentence and one table first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tellapart.demo import FEW, NEAREST, ROWS, demo, write_pictures
from tellapart.runtime.console import Console


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    console = Console()
    console.terminal.width = 80
    with console.terminal.capture() as printed:
        result = demo(folder / "run", epochs=0.2, console=console)
    return folder, result, printed.get()


def test_the_result_has_the_rows_and_columns_that_are_printed(short_demo):
    _, result, printed = short_demo
    for row, name in ROWS.items():
        assert name in printed
        for column in (NEAREST, FEW):
            assert f"{100 * result['scores'][row][column]['value']:.1f} ±" in printed


def test_the_first_line_of_the_results_compares_with_pixels(short_demo):
    _, result, printed = short_demo
    line = next(line for line in printed.splitlines() if line.startswith("Which digit"))
    pixels = 100 * result["scores"]["centred pixels"][NEAREST]["value"]
    learned = 100 * result["scores"]["trained embedding"][NEAREST]["value"]
    assert f"Pixels: {pixels:.0f} %" in line
    assert f"without labels: {learned:.0f} %" in line
    table = printed.partition("Which digit")[2].partition("\n\nlook-alikes")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_pixels_are_a_weak_baseline_on_these_pictures(short_demo):
    """The reason for this data set: on plain digits pixels reach 95 %."""
    _, result, _ = short_demo
    assert result["scores"]["centred pixels"][NEAREST]["value"] < 0.5


def test_the_demo_leaves_a_run_pictures_and_a_contact_sheet(short_demo):
    folder, result, _ = short_demo
    assert (folder / "run" / "encoder" / "model.safetensors").exists()
    assert len(list((folder / "run-pictures").glob("train/*/*.png"))) == 1437
    assert len(list((folder / "run-pictures").glob("test/*/*.png"))) == 360
    assert Image.open(result["picture"]).width > 200


def test_pictures_are_a_function_of_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_pictures(tmp_path / name, seed=seed)
    one, same, other = (
        np.asarray(Image.open(tmp_path / name / "train" / "0" / "0000.png")) for name in "abc"
    )
    assert one.shape == (32, 32, 3)
    assert (one == same).all()
    assert (one != other).any()
