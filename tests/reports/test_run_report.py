"""The report: one file that needs nothing else, for every kind of data."""

import re
from html import unescape

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
        "Confusion of classes",
        "fingerprint",
        "trained features",
        "<svg",
    ):
        assert said in words
    assert found["verdict"] in unescape(words)
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


def test_charts_leave_out_what_is_not_finite_and_stand_without_points():
    assert html.chart("Loss", {"loss": [(1, float("nan"))]})["lines"] == []
    lines = {"loss": [(1, 2.0), (2, float("inf")), (3, 1.0)]}
    drawing = html.chart("Loss", lines, level=("chance", 1.5))
    assert [line.count(",") for line in drawing["lines"]] == [2]
    assert html.TOP < drawing["level"] < html.LOW
    assert {"chance", "loss", "1", "2", "3"} <= {label["text"] for label in drawing["labels"]}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [9, 600])
def test_pictures_of_any_channels_are_small_files(channels, side):
    noise = np.random.default_rng(0).integers(0, 255, (side, 200, channels), np.uint8)
    uri = html.data_uri(noise)
    assert re.match("data:image/(png|jpeg);base64,", uri)
    assert len(uri) < 60_000


@pytest.mark.parametrize(
    "hostile", ["<b>house</b>", "\x1b[2J", "\u202egnp", "\udcff", '"><script>']
)
def test_outside_text_is_escaped_wherever_it_stands(hostile):
    item = {"name": hostile, "caption": hostile, "note": hostile, "words": hostile, "image": None,
            "small": False, "query": False}  # fmt: skip
    source = """{% import "parts.html" as parts %}
        {{ parts.tiles([item]) }}{{ parts.facts({name: name}) }}
        {{ parts.table((name, name), [(name, name)]) }}{{ parts.copy([name], name) }}
        {{ parts.heat([name], [[1.0]]) }}"""
    page = html.environment().from_string(source).render(item=item, name=hostile)
    page.encode("utf-8")
    assert hostile not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
