"""The report: one file that needs nothing else, for every kind of data, before and after judging."""

import re

import numpy as np
import pytest

import tellapart as ta
from tellapart import api, cli
from tellapart.errors import DataError
from tellapart.reports import html


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    ta.train("instdisc", data="digits", out=folder, steps=60, log_every=5)
    return folder


def test_a_report_needs_no_other_file_and_no_script(run, tmp_path):
    ta.evaluate(run)
    found = api.report(run, out=tmp_path / "r.html")
    words = (tmp_path / "r.html").read_text()
    assert not re.search(r"<script|https?://|src=\"(?!data:)|href=", words)
    assert words.count("data:image/png;base64,") > 80  # look-alikes, outliers
    for said in (
        "centred pixels",
        "chance",
        "What is taken for what",
        "fingerprint",
        "trained features",
        "<svg",
    ):
        assert said in words
    assert found["verdict"] in words.replace("&#x27;", "'")
    assert found["bytes"] < 2_000_000


def test_what_is_missing_is_said_with_its_command(run, tmp_path, monkeypatch):
    (run / "eval.json").unlink(missing_ok=True)
    api.report(run, out=tmp_path / "r.html")
    assert f"tellapart eval {run}" in (tmp_path / "r.html").read_text()


def test_a_report_of_sentences(tmp_path):
    words = ["red", "green", "blue", "tall", "small", "quick"]
    lines = [f"the {a} {b} <b>house</b> number {i}" for i in range(3) for a in words for b in words]
    (tmp_path / "s.txt").write_text("\n".join(lines))
    ta.train("simcse", data=str(tmp_path / "s.txt"), out=tmp_path / "run", steps=2, batch_size=16)
    api.report(tmp_path / "run", out=tmp_path / "r.html")
    made = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;house" in made  # what the data say is text, never markup
    assert "<b>house" not in made


def test_a_report_that_cannot_be_written(run, tmp_path):
    with pytest.raises(DataError, match="folder"):
        api.report(run, out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        api.report(run, out=tmp_path / "file" / "r.html")


def test_the_command_writes_into_the_run(run):
    cli.main(["report", str(run)])
    assert (run / "report.html").stat().st_size > 10_000


def test_curves_leave_out_what_is_no_number_and_stand_without_points():
    assert "no points" in html.curves({"loss": [(1, float("nan"))]})
    drawn = html.curves({"loss": [(1, 2.0), (2, float("inf")), (3, 1.0)]}, level=("chance", 1.5))
    assert drawn.count("<polyline") == 1
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_figures_of_any_channels(channels):
    assert "data:image/png" in html.figure(np.zeros((9, 200, channels), np.uint8), "<name>")
    assert "&lt;name&gt;" in html.figure(None, "<name>")
