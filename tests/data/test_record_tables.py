"""Tables of items: CSV, TSV, JSON lines, parquet, Arrow files and frames, by every verb."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

import tellapart as ta
from tellapart.cli import main
from tellapart.data import ImageSource, SequenceSource, TextSource, kind_of, open_source
from tellapart.errors import ConfigError, DataError, MissingExtraError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
RANDOM = np.random.default_rng(0)
KINDS = ["cat", "dog"]


@pytest.fixture
def rows(tmp_path):
    """Twelve pictures on the disk, with class and split."""
    (tmp_path / "photos").mkdir()
    found = []
    for i in range(12):
        pixels = RANDOM.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02d}.png")
        found.append(
            {
                "note": f"n{i}",
                "kind": KINDS[i % 2],
                "part": "val" if i % 4 == 0 else "train",
                "file": f"photos/{i:02d}.png",
            }
        )
    return found


def write(path, rows):
    """A table in the format that the ending of the path says."""
    ending = path.suffix
    if ending in (".csv", ".tsv"):
        mark = "," if ending == ".csv" else "\t"
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        path.write_text("\n".join(mark.join(map(str, line)) for line in lines) + "\n")
    elif ending == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow"])
def test_a_table_of_paths_gives_images_labels_and_splits_in_any_order_of_columns(
    tmp_path, rows, ending
):
    path = write(tmp_path / f"table{ending}", rows)
    spec = f"{path}#image=file,label=kind"
    assert kind_of(spec) == "images"
    source = open_source(spec)
    assert isinstance(source, ImageSource)
    assert source.ids == [row["file"] for row in rows]
    assert list(source.classes) == KINDS
    assert source.labels.tolist() == [0, 1] * 6
    assert len(source.split("test")) == 3
    assert "note" in " ".join(n["text"] for n in source.notes)  # the unused column is named


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".arrow"])
def test_usual_column_names_need_no_option(tmp_path, rows, ending):
    usual = [{"label": r["kind"], "split": r["part"], "path": r["file"]} for r in rows]
    source = open_source(str(write(tmp_path / f"usual{ending}", usual)))
    assert source.labels.tolist() == [0, 1] * 6
    assert len(source.split("test")) == 3


def test_a_column_of_bytes_becomes_images_with_ids(tmp_path, rows):
    held = [
        {"key": f"k{i}", "label": i % 3, "image": (tmp_path / r["file"]).read_bytes()}
        for i, r in enumerate(rows)
    ]
    source = open_source(str(write(tmp_path / "held.parquet", held)))
    assert source.ids == [f"k{i}" for i in range(12)]
    assert list(source.classes) == ["0", "1", "2"]
    assert np.array_equal(source.image(3), np.asarray(Image.open(tmp_path / rows[3]["file"])))
    again = open_source(str(tmp_path / "held.parquet"))
    assert again.fingerprint == source.fingerprint


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_sentences_with_labels_and_splits(tmp_path, ending):
    lines = [
        {"split": "test" if i < 4 else "train", "label": KINDS[i % 2], "text": f"sentence {i} here"}
        for i in range(12)
    ]
    path = write(tmp_path / f"sentences{ending}", lines)
    assert kind_of(str(path)) == "text"
    source = open_source(str(path))
    assert isinstance(source, TextSource)
    assert source.text(3) == "sentence 3 here"
    assert list(source.classes) == KINDS
    assert len(source.split("test")) == 4


def test_pairs_of_sentences_by_named_columns(tmp_path):
    lines = [{"a": f"question {i}", "b": f"answer {i}"} for i in range(10)]
    source = open_source(f"{write(tmp_path / 'pairs.jsonl', lines)}#text=a,text2=b")
    assert source.columns == 2
    assert source.text(4, 1) == "answer 4"


def test_lists_of_numbers_become_series(tmp_path):
    lines = [{"id": f"s{i}", "y": i % 2, "values": RANDOM.random(32).tolist()} for i in range(8)]
    source = open_source(str(write(tmp_path / "values.parquet", lines)))
    assert isinstance(source, SequenceSource)
    assert source.lengths.tolist() == [32] * 8
    assert source.labels.tolist() == [0, 1] * 4


@pytest.mark.parametrize(
    ("ending", "bad"),
    [(".csv", "only one cell"), (".jsonl", "{broken"), (".jsonl", "[1, 2]")],
)
def test_bad_rows_are_counted_and_named(tmp_path, rows, ending, bad):
    path = write(tmp_path / f"bad{ending}", rows)
    lines = path.read_text().splitlines()
    lines.insert(3, bad)
    lost = dict(rows[0], file="photos/missing.png")
    lines.append(json.dumps(lost) if ending == ".jsonl" else ",".join(lost.values()))
    path.write_text("\n".join(lines))
    source = open_source(f"{path}#image=file")
    assert len(source) == 12
    assert [s["path"] for s in source.skipped] == [f"{path.name}:4", "photos/missing.png"]


def test_rows_without_a_path_or_a_sentence_are_counted(tmp_path, rows):
    rows[2]["file"] = None
    source = open_source(f"{write(tmp_path / 'holes.parquet', rows)}#image=file")
    assert len(source) == 11
    assert source.skipped[0]["path"] == "holes.parquet:2"
    lines = [{"text": "" if i == 1 else f"line {i}"} for i in range(5)]
    found = open_source(str(write(tmp_path / "holes.jsonl", lines)))
    assert (len(found), len(found.skipped)) == (4, 1)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_keep_labels_splits_and_ids(tmp_path, rows, library, monkeypatch):
    package = pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    frame = package.table(columns) if library == "pyarrow" else package.DataFrame(columns)
    made = ta.data.kinds.given(frame, columns={"path": "file", "label": "kind"})
    source = open_source(made)
    assert source.labels.tolist() == [0, 1] * 6
    assert len(source.split("test")) == 3


def test_every_verb_takes_the_same_line(tmp_path, rows):
    path, columns = write(tmp_path / "verbs.csv", rows), "image=file,label=kind"
    run = tmp_path / "run"
    command = ["train", "simclr", "--data", str(path), "--columns", columns, "--out", str(run)]
    main([*command, "--steps", "2", "--batch-size", "4", "--width", "8"])
    scored = ta.evaluate(run)
    assert len(scored.to_dict()["scores"]) > 1
    vectors = ta.embed(run, data=path, columns=columns, out=tmp_path / "vectors.npz")
    assert vectors.ids[0] == "photos/00.png"
    seen = ta.inspect(path, columns={"image": "file", "label": "kind"})
    assert seen.to_dict()["counts"]["items"] == 12


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("image=nothing", "no column 'nothing' for image; its columns: note, kind, part, file"),
        ("picture=file", "unknown column role 'picture'"),
        ("image", "role=name"),
        ("image=file,image=kind", "names image twice"),
    ],
)
def test_wrong_columns_are_named(tmp_path, rows, columns, message):
    path = write(tmp_path / "wrong.csv", rows)
    with pytest.raises((DataError, ConfigError), match=message):
        ta.inspect(path, columns=columns)


def test_columns_of_data_without_columns_are_refused(tmp_path, rows):
    with pytest.raises(DataError, match="leave out --columns"):
        open_source(f"{tmp_path / 'photos'}#image=file")


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".json", ".jsonl"])
def test_damaged_tables_are_an_error_of_data(tmp_path, ending):
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(b"\x00\x01[{garbage")
    with pytest.raises(DataError, match="damaged"):
        open_source(str(path))


def test_pyarrow_is_named_where_it_is_missing(tmp_path, rows, monkeypatch):
    path = write(tmp_path / "core.parquet", rows)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[tables\]'"):
        open_source(str(path))
