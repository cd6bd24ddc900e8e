"""Tables of numbers: columns of time and of text, lines that are none, pieces."""

from __future__ import annotations

import numpy as np
import pytest

from tellapart.data import open_source
from tellapart.data.kinds import kind_of
from tellapart.data.series import in_words
from tellapart.errors import ConfigError, DataError

HOURS = 400
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.standard_normal((HOURS, 2)).round(3)


def noted(source, kind):
    return next((n for n in source.notes if n["kind"] == kind), None)


def write(path, stamps, heading="timestamp,a,b", separator=",", end="\n"):
    rows = [separator.join([str(s), *map(str, row)]) for s, row in zip(stamps, VALUES, strict=True)]
    path.write_text(end.join([heading.replace(",", separator), *rows]) + end)
    return open_source(str(path))


def stamps(form):
    days, hours = np.arange(HOURS) // 24, np.arange(HOURS) % 24
    if form == "24:00":  # hours are counted from 1
        return [f"1988-01-{d + 1:02d} {h + 1:02d}:00:00" for d, h in zip(days, hours, strict=True)]
    return [form.format(d=d + 1, h=h) for d, h in zip(days, hours, strict=True)]


@pytest.mark.parametrize(
    "form",
    ["1988-01-{d:02d} {h:02d}:00:00", "1988-01-{d:02d}T{h:02d}:00:00Z",
        "{d:02d}.01.2020 {h:02d}:00",
     "{d:02d}/01/2020 {h:02d}:00", "01/{d:02d}/2020 {h:02d}:00:00",
     "2020-01-{d:02d}T{h:02d}:00:00+02:00",
     "1899-01-{d:02d} {h:02d}:00:00", "24:00"],
)  # fmt: skip
def test_the_column_of_time_gives_the_rate(tmp_path, form):
    source = write(tmp_path / "a.csv", stamps(form))
    assert (source.kind, source.channels, source.step_seconds) == ("series", 2, 3600)
    assert "a step is 1 h" in noted(source, "rate")["text"]
    assert np.allclose(source.sequence(0), VALUES[: len(source.sequence(0))], atol=1e-6)


@pytest.mark.parametrize(
    ("heading", "values", "seconds"),
    [("time", np.arange(HOURS) * 0.01, 0.01), ("unix", 1.7e9 + 60 * np.arange(HOURS), 60),
     ("epoch", (1.7e9 + np.arange(HOURS)) * 1000, 1), ("ms", 20 * np.arange(HOURS), 0.02)],
)  # fmt: skip
def test_times_in_numbers(tmp_path, heading, values, seconds):
    source = write(tmp_path / "a.csv", values.tolist(), f"{heading},a,b")
    assert source.channels == 2
    assert source.step_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("heading", ["", "index", "Unnamed: 0"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_lines_is_left_out(tmp_path, heading, first):
    source = write(tmp_path / "a.csv", range(first, HOURS + first), f"{heading},a,b")
    assert source.channels == 2
    assert noted(source, "column that counts the lines left out")


def test_columns_of_text_and_empty_ones_are_named(tmp_path):
    rows = [f"station {i % 3},{a},,{b}," for i, (a, b) in enumerate(VALUES)]
    (tmp_path / "a.csv").write_text("\n".join(["place,a,empty,b,", *rows]))
    source = open_source(str(tmp_path / "a.csv"))
    assert source.channels == 2
    assert noted(source, "column of text left out")["names"] == ["place"]
    assert noted(source, "empty column left out")["names"] == ["empty", "column 5"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators(tmp_path, separator, end):
    source = write(tmp_path / "a.csv", stamps("24:00"), separator=separator, end=end)
    assert (source.channels, source.step_seconds) == (2, 3600)


def test_decimal_commas(tmp_path):
    rows = [f"{a};{b}".replace(".", ",") for a, b in VALUES]
    (tmp_path / "a.csv").write_text("\n".join(["x;y", *rows]))
    assert np.allclose(open_source(str(tmp_path / "a.csv")).sequence(0)[0], VALUES[0], atol=1e-6)


def test_blanks_and_a_tsv_of_numbers(tmp_path):
    rows = [f"{a} {b}" for a, b in VALUES]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    assert open_source(str(tmp_path / "a.csv")).channels == 2
    (tmp_path / "b.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in VALUES))
    assert kind_of(str(tmp_path / "b.tsv")) == "series"


@pytest.mark.parametrize(
    "above",
    [["Weather of 1988"], ["Weather, of 1988", "", "Station 12"], ["# a comment"], ["a,b", "1,2"]],
)
def test_lines_above_the_table_are_left_out_and_named(tmp_path, above):
    rows = [f"{a},{b},{a}" for a, b in VALUES]
    (tmp_path / "a.csv").write_text("\n".join([*above, "x,y,z", *rows]))
    source = open_source(str(tmp_path / "a.csv"))
    assert source.channels == 3
    assert len(source.sequence(0)) + source.lengths[1:].sum() == HOURS
    if not above[0].startswith("#"):
        assert above[0] in noted(source, "lines above the table left out")["text"]


def test_a_second_line_of_headings_and_a_line_below(tmp_path):
    rows = [f"{a},{b}" for a, b in VALUES]
    (tmp_path / "a.csv").write_text("\n".join(["x,y", "m/s,kg", *rows, "end of file"]))
    source = open_source(str(tmp_path / "a.csv"))
    assert source.lengths.sum() == HOURS
    assert noted(source, "second line of headings left out")
    assert noted(source, "line below the table left out")


def test_a_line_of_other_cells_leaves_out_its_piece_alone(tmp_path):
    rows = [f"{a},{b}" for a, b in VALUES]
    rows[200] = "broken"
    rows[300] = "ERR,1"
    (tmp_path / "a.csv").write_text("\n".join(["x,y", *rows]))
    source = open_source(str(tmp_path / "a.csv"), piece=50)
    assert len(source) == 6
    assert len(source.skipped) == 2
    assert noted(source, "lines with another number of cells")
    assert noted(source, "cells without a number in x")


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_codings(tmp_path, coding):
    rows = [f"{a},{b}" for a, b in VALUES]
    (tmp_path / "a.csv").write_bytes("\n".join(["x°,y", *rows]).encode(coding))
    assert open_source(str(tmp_path / "a.csv")).channels == 2


def test_columns_in_another_order_and_other_columns(tmp_path):
    for name, heading in (("a", "x,y"), ("b", "x,y"), ("c", "y,x"), ("d", "x,z")):
        rows = [f"{a},{b}" for a, b in VALUES]
        (tmp_path / f"{name}.csv").write_text("\n".join([heading, *rows]))
    source = open_source(str(tmp_path), piece=HOURS)
    assert source.ids == ["a.csv", "b.csv", "c.csv"]
    assert np.array_equal(source.sequence(2), source.sequence(0)[:, ::-1])
    assert "other channels" in source.skipped[0]["reason"]


# pieces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "least"), [(8760, 100), (100_000, 40), (200, 5), (60, 5)])
def test_one_long_series_makes_enough_items(tmp_path, steps, least):
    np.save(tmp_path / "a.npy", RANDOM.standard_normal((steps, 3)))
    source = open_source(str(tmp_path / "a.npy"))
    assert len(source) >= least
    assert source.lengths.sum() == steps
    assert "--piece" in noted(source, "pieces")["text"]


def test_many_series_stay_whole(tmp_path):
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", RANDOM.standard_normal((500, 3)))
    assert open_source(str(tmp_path)).lengths.tolist() == [500] * 8


@pytest.mark.parametrize(
    ("piece", "hop", "starts", "rest"),
    [(100, None, [0, 100, 200], 50), (100, 50, [0, 50, 100, 150, 200, 250], 0),
     (100, 150, [0, 150], 150), (350, 10, [0], 0), (400, None, [0], 0)],
)  # fmt: skip
def test_pieces_and_hops(tmp_path, piece, hop, starts, rest):
    values = RANDOM.standard_normal((350, 2)).astype(np.float32)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", values)
    source = open_source(str(tmp_path), piece=piece, hop=hop)
    assert len(source) == 2 * len(starts)
    for i, start in enumerate(starts):
        assert np.array_equal(source.sequence(i), values[start : start + piece])
    assert (noted(source, "rest") or {"text": "0 steps"})["text"].startswith(f"{2 * rest} steps")


@pytest.mark.parametrize("options", [{"piece": 1}, {"hop": 5}, {"piece": 10, "hop": 0}])
def test_pieces_that_are_none(tmp_path, options):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(ConfigError, match=r"--(piece|hop)"):
        open_source(str(tmp_path / "a.npy"), **options)


# errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.csv", b"", "empty"), ("a.csv", b"x,y\na,b\nc,d\n", "not a table of numbers"),
     ("a.csv", b"\xff\xfe\xff", "not a table of numbers|cannot be read"), ("a.npy",
         b"PK\3\4" + b"0" * 100, "not a table"),
     ("a.npy", b"\x93NUMPY\1\0v\0{'descr': 'O'", "not a table"), ("a.npy", b"", "empty")],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_source(f"series:{tmp_path / name}")


def test_durations_in_words():
    assert [in_words(s) for s in (0.25, 60, 5400, 86_400)] == ["0.25 s", "1 min", "1.5 h", "1 d"]
