"""Files: what is opened, listed, counted and named; lists, split folders, labels, own outputs."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellapart.data import open_source
from tellapart.data.folders import split_of
from tellapart.data.image_folder import mark
from tellapart.data.kinds import kind_of
from tellapart.errors import ConfigError, DataError

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and such names are of POSIX")
RANDOM = np.random.default_rng(0)


def picture(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (24, 24, 3), np.uint8)).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """Four pictures each of cats and dogs, and their names."""
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    for name in names:
        picture(tmp_path / name)
    return tmp_path, names


def noted(source, kind):
    return next((n for n in source.notes if n["kind"] == kind), None)


# lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "lst"])
@pytest.mark.parametrize(
    "line",
    [
        "{0}\t{1}",
        "{0} {1}",
        "{0},{1}",
        "{0};{1}",
        "{0}|{1}",
        '"{0}","{1}"',
        '"{0}" {1}',
        "{0}   {1}",
    ],
)
def test_a_list_is_read_with_any_separator(pets, line, ending):
    folder, names = pets
    file = folder / f"list.{ending}"
    file.write_text("".join(line.format(n, n[:3]) + "\n" for n in names))
    assert kind_of(str(file)) == "images"
    source = open_source(str(file))
    assert (len(source), list(source.classes), source.skipped) == (8, ["cat", "dog"], [])


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_codings_and_ends_of_lines_of_lists(pets, coding, end):
    folder, names = pets
    text = "".join(f"{n}\t{n[:3]}{end}" for n in names)
    (folder / "list.txt").write_bytes(text.encode(coding))
    source = open_source(str(folder / "list.txt"))
    assert (len(source), list(source.classes)) == (8, ["cat", "dog"])


@pytest.mark.parametrize("odd", ["x\u2028y.png", "x\x85y.png", "a b.png", "a,b.png", "a;b.png"])
def test_odd_names_in_lists(pets, odd):
    folder, names = pets
    picture(folder / odd)
    (folder / "list.txt").write_text("\n".join([*names, odd]), encoding="utf-8")
    source = open_source(str(folder / "list.txt"))
    assert (len(source), source.skipped) == (9, [])


def test_a_heading_names_the_columns_and_the_split_is_kept(pets):
    folder, names = pets
    rows = [f"{i},{n},{n[:3]},{'Training' if i % 2 else 'val'},7" for i, n in enumerate(names)]
    (folder / "list.csv").write_text("\n".join(["nr,filename,species,split,width", *rows]))
    source = open_source(str(folder / "list.csv"))
    assert list(source.classes) == ["cat", "dog"]
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 4, "test": 4}
    assert noted(source, "columns")["names"] == ["nr", "width"]


@pytest.mark.parametrize("line", ["{0},{1},{2}", "{0}\t{1}\t{2}", "{0} {1} {2}"])
def test_a_third_column_is_the_split(pets, line):
    folder, names = pets
    rows = [line.format(n, n[:3], "train" if i % 4 else "test") for i, n in enumerate(names)]
    (folder / "list.txt").write_text("\n".join(rows))
    splits = open_source(str(folder / "list.txt")).splits
    assert {k: len(v) for k, v in splits.items()} == {"train": 6, "test": 2}


def test_files_named_twice_and_windows_separators(pets):
    folder, names = pets
    lines = [n.replace("/", "\\") for n in names] + names[:2]
    (folder / "list.txt").write_text("\r\n".join(lines))
    source = open_source(str(folder / "list.txt"))
    assert len(source) == 8
    assert noted(source, "named twice")["count"] == 2


def test_lines_that_look_like_paths_are_never_sentences(tmp_path):
    (tmp_path / "gone.txt").write_text("a/b.png x\na/c.png y\na/d.png z\n")
    assert kind_of(str(tmp_path / "gone.txt")) == "images"
    with pytest.raises(DataError, match="no such file"):
        open_source(str(tmp_path / "gone.txt"))
    (tmp_path / "talk.txt").write_text("I saw a cat, it ran.\nOr was it a dog; who knows\nWell.\n")
    assert kind_of(str(tmp_path / "talk.txt")) == "text"


# folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "dev"),
     ("train2017", "val2017"), ("images/train", "images/val"), ("data/Training", "data/Validation"),
     ("train_set", "test_set"), ("train-images", "test-images")],
)  # fmt: skip
def test_split_folders_of_any_spelling_and_depth(tmp_path, train, test):
    for split, count in ((train, 3), (test, 2)):
        for label in ("a", "b"):
            for i in range(count):
                picture(tmp_path / split / label / f"{i}.png")
    source = open_source(str(tmp_path))
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 6, "test": 4}
    assert list(source.classes) == ["a", "b"]
    assert noted(source, "splits")


def test_the_split_may_stand_below_the_class(tmp_path):
    for label in ("bottle", "cable"):
        for split in ("train", "test"):
            for i in range(2):
                picture(tmp_path / label / split / f"{i}.png")
    source = open_source(str(tmp_path))
    assert list(source.classes) == ["bottle", "cable"]
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 4, "test": 4}


def test_names_that_only_resemble_splits_are_classes(tmp_path):
    for label in ("trains", "tests", "devices", "evaluators"):
        assert split_of(label) is None
    for label in ("test", "trains"):
        for i in range(2):
            picture(tmp_path / label / f"{i}.png")
    source = open_source(str(tmp_path))
    assert list(source.classes) == ["test", "trains"]
    assert "read as a class" in noted(source, "splits")["text"]


@pytest.mark.parametrize(
    ("level", "classes"),
    [("top", ["animals", "food"]), ("last", ["birds", "cats", "fruit"]), ("1", ["animals", "food"]),
     ("2", ["birds", "cats", "fruit"])],
)  # fmt: skip
def test_the_level_of_the_label(tmp_path, level, classes):
    for name in ("animals/birds", "animals/cats", "food/fruit"):
        for i in range(2):
            picture(tmp_path / name / f"{i}.png")
    assert list(open_source(str(tmp_path), label_level=level).classes) == classes


@pytest.mark.parametrize("level", ["3", "0", "-1", "bottom", "1.5"])
def test_a_level_that_does_not_exist_is_an_error(pets, level):
    with pytest.raises(ConfigError, match="--label-level"):
        open_source(str(pets[0]), label_level=level)


def test_endings_that_are_not_read_are_counted_and_named(pets):
    folder, _ = pets
    for name in ("a.dcm", "b.DCM", "c.svg", "notes.txt", "labels.csv", "clip.mp4", "noending"):
        (folder / name).write_bytes(b"x" * 10)
    note = noted(open_source(str(folder)), "other endings")
    assert note["count"] == 7
    assert ".dcm (2)" in note["text"]
    assert "drawings of lines" in note["text"]


def test_what_pillow_can_read_is_read(tmp_path):
    for ending, kind in (
        ("jfif", "JPEG"), ("jpe", "JPEG"), ("avif", "AVIF"), ("jp2", "JPEG2000"), ("ppm", "PPM"),
        ("pgm", "PPM"), ("dib", "BMP"), ("webp", "WEBP"),
    ):  # fmt: skip
        picture(tmp_path / f"x.{ending}", format=kind)
    source = open_source(str(tmp_path))
    assert (len(source), source.skipped) == (8, [])


def test_heic_is_read_with_the_extra_and_named_without_it(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    for i in range(2):
        pixels = Image.fromarray(RANDOM.integers(0, 256, (64, 48, 3), np.uint8))
        heif.from_pillow(pixels).save(tmp_path / f"{i}.heic", quality=90)
        picture(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path))
    assert (len(source), source.skipped) == (4, [])
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    without = open_source(str(tmp_path), cache=tmp_path / "other")
    assert {s["reason"] for s in without.skipped} == {"HEIC: type: pip install 'tellapart[heic]'"}


def test_a_mixed_folder_says_what_it_took_and_how_to_take_the_rest(pets):
    folder, _ = pets
    soundfile = pytest.importorskip("soundfile")
    for i in range(12):
        soundfile.write(folder / f"{i}.wav", 0.1 * RANDOM.standard_normal(4000), 4000)
    source = open_source(str(folder))
    assert (source.kind, len(source)) == ("audio", 12)
    note = noted(source, "other data: images")
    assert note["count"] == 8
    assert f"--data images:{folder}" in note["text"]
    assert len(open_source(f"images:{folder}")) == 8


@posix
def test_links_are_followed_alike_for_every_kind(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for i in range(3):
        (tmp_path / "calls").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "calls" / f"{i}.wav", 0.1 * RANDOM.standard_normal(4000), 4000)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "here").symlink_to(tmp_path / "calls")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "calls")
    source = open_source(str(tmp_path / "linked"))
    assert (source.kind, len(source)) == ("audio", 3)
    assert noted(source, "links")["count"] == 1


def test_hidden_and_system_files_are_left_out_and_counted(pets):
    folder, _ = pets
    for name in (
        "@eaDir/0.png/SYNOPHOTO.jpg", ".thumbnails/0.png", "__MACOSX/0.png", "._0.png",
        "cat/._1.png",
        "#recycle/1.png", ".git/logo.png",
    ):  # fmt: skip
        picture(folder / name)
    (folder / "Thumbs.db").write_bytes(b"x")
    source = open_source(str(folder))
    assert len(source) == 8
    assert noted(source, "hidden")["count"] == 8


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".gif", ".tiff"])
def test_pictures_that_we_wrote_are_no_data(pets, ending):
    folder, _ = pets
    before = open_source(str(folder)).fingerprint
    picture(folder / f"found{ending}", **mark(ending))
    source = open_source(str(folder))
    assert source.fingerprint == before
    assert noted(source, "own pictures")["names"] == [f"found{ending}"]


def test_runs_and_saved_vectors_are_no_data(pets):
    folder, _ = pets
    picture(folder / "run" / "page.png")
    (folder / "run" / "run.json").write_text(json.dumps({"versions": {"tellapart": "1"}}))
    picture(folder / "cache" / "x.png")
    (folder / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    source = open_source(str(folder))
    assert len(source) == 8
    assert noted(source, "own folders")["names"] == ["cache", "run"]
    (folder / "mine").mkdir()
    (folder / "mine" / "run.json").write_text('{"a": 1}')
    picture(folder / "mine" / "x.png")  # the run.json of another program is none
    assert len(open_source(str(folder))) == 9


# names and special files --------------------------------------------------------------------------


@posix
def test_names_that_are_not_utf8_are_used_with_an_escaped_id(tmp_path):
    root = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(root)
    for name in (b"/th\xe9.png", b"/a.png", b"/b.png"):
        Image.new("RGB", (20, 20), (len(name), 3, 200)).save(os.fsdecode(root + name))
    source = open_source(os.fsdecode(root))
    assert "th\\xe9.png" in source.ids
    json.dumps([source.ids, [dict(n) for n in source.notes]]).encode()
    assert all(source.file(i).is_file() for i in range(3))
    with open(root + b"/list.txt", "wb") as file:
        file.write(b"a.png\nth\xe9.png\nb.png\n")
    assert len(open_source(os.fsdecode(root + b"/list.txt"))) == 3


@posix
def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    for i in range(3):
        picture(tmp_path / "i" / f"{i}.png")
        (tmp_path / "s").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "s" / f"{i}.wav", 0.1 * RANDOM.standard_normal(4000), 4000)
        (tmp_path / "t").mkdir(exist_ok=True)
        np.save(tmp_path / "t" / f"{i}.npy", RANDOM.standard_normal((300, 2)))
    for folder, ending in (("i", "png"), ("s", "wav"), ("t", "npy"), ("t", "csv")):
        os.mkfifo(tmp_path / folder / f"pipe.{ending}")
        (tmp_path / folder / f"zero.{ending}").symlink_to("/dev/zero")
        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(tmp_path / folder)
            server.bind(f"socket.{ending}")
    for folder, count in (("i", 3), ("s", 3), ("t", 6)):
        source = open_source(str(tmp_path / folder))
        assert len(source) == 3
        assert len(source.skipped) == count
    with pytest.raises(DataError, match="a pipe"):
        kind_of(str(tmp_path / "t" / "pipe.csv"))
    (tmp_path / "list.txt").write_text("i/0.png\ni/pipe.png\ni/1.png\n/dev/zero\na\0b.png\n")
    assert len(open_source(f"images:{tmp_path / 'list.txt'}")) == 2


# labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "tsv", "semicolon", "wide", "paths", "parquet"])
def test_labels_of_a_table(pets, form):
    folder, names = pets
    labels = {n: "ab"[i % 2] for i, n in enumerate(names[:6])}
    file = folder / ("few.parquet" if form == "parquet" else "few.csv")
    lines = {
        "csv": [f"{n},{label}" for n, label in labels.items()],
        "tsv": ["path\tlabel", *(f"{n}\t{label}" for n, label in labels.items())],
        "semicolon": [f"{n};{label}" for n, label in labels.items()],
        "wide": ["nr,filename,class", *(f"7,{n},{label}" for n, label in labels.items())],
        "paths": [f"{folder / n},{label}" for n, label in labels.items()],
    }
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = {"path": list(labels), "label": list(labels.values())}
        parquet.write_table(pyarrow.table(table), file)
    else:
        file.write_text("\n".join(lines[form]))
    source = open_source(str(folder)).with_labels(file)
    assert {i: source.classes[n] for i, n in zip(source.ids, source.labels, strict=True)} == labels
