"""Manifests: made of folders, tar archives and stores; read a slice at a time; damaged ones."""

import io
import os
import tarfile
import uuid

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import tellapart as ta
from tellapart.data import manifest, manifest_writing
from tellapart.errors import DataError


def rows_of(path):
    return parquet.read_table(path).to_pylist()


def png(seed=0, size=12):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def save(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_folder_has_the_ids_and_labels_of_the_opened_source(photos, tmp_path):
    made = ta.manifest(photos, out=tmp_path / "photos.parquet")
    source = ta.open_source(str(photos))
    rows = rows_of(tmp_path / "photos.parquet")
    assert made.rows == 24
    assert made.classes == 3
    assert [r["id"] for r in rows] == source.ids
    assert [r["label"] for r in rows] == [source.classes[i] for i in source.labels]
    assert all(os.path.isabs(r["uri"]) for r in rows)


def test_splits_come_from_folders(tmp_path):
    for split, label, n in (("train", "cat", 3), ("train", "dog", 2), ("test", "cat", 1)):
        (tmp_path / "data" / split / label).mkdir(parents=True)
        for i in range(n):
            (tmp_path / "data" / split / label / f"{i}.png").write_bytes(png(i))
    made = ta.manifest(tmp_path / "data", out=tmp_path / "m.parquet")
    assert made.splits == {"train": 5, "test": 1}
    assert {r["label"] for r in rows_of(tmp_path / "m.parquet")} == {"cat", "dog"}


def test_names_come_in_the_order_of_strings(tmp_path):
    names = ["a/1.png", "a.png", "a-b/2.png", "b.png", "a/c/3.png"]
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(png())
    manifest_writing.write(tmp_path / "d", tmp_path / "m.parquet")
    assert [r["id"] for r in rows_of(tmp_path / "m.parquet")] == sorted(names)


def test_what_is_left_out_is_counted(tmp_path):
    folder = tmp_path / "d"
    (folder / ".hidden").mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "notes.txt").write_text("x")
    (folder / "more.tar.gz").write_bytes(b"x")
    (folder / "again").symlink_to(folder)
    made = ta.manifest(folder, out=tmp_path / "m.parquet")
    assert {n["kind"]: n["count"] for n in made.notes} == {
        "hidden": 1, "links": 1, "other endings": 1, "compressed archives": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", [b"caf\xe9.png", "ü ñ#?%41.png".encode()])
def test_a_file_of_any_name_is_found_again(tmp_path, name):
    (tmp_path / "d").mkdir()
    with open(os.path.join(os.fsencode(tmp_path / "d"), name), "wb") as file:
        file.write(png())
    manifest_writing.write(tmp_path / "d", tmp_path / "m.parquet")
    (item,) = manifest.Manifest(tmp_path / "m.parquet").items(0, 10)
    assert manifest.read(item) == png()


def test_members_of_a_tar_are_items(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, name in enumerate(("cat/0.png", "dog/1.png", "dog/1.json")):
            about = tarfile.TarInfo(name)
            about.size = len(png(i))
            tar.addfile(about, io.BytesIO(png(i)))
    made = ta.manifest(tmp_path / "a.tar", out=tmp_path / "m.parquet")
    items = manifest.Manifest(tmp_path / "m.parquet").items(0, 10)
    assert [(i.id, i.label) for i in items] == [
        ("a.tar/cat/0.png", "cat"),
        ("a.tar/dog/1.png", "dog"),
    ]
    assert [manifest.read(i) for i in items] == [png(0), png(1)]
    assert made.notes[-1]["count"] == 1
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: items[1].offset + 50])
    with pytest.raises(ValueError, match="bytes are there"):
        manifest.read(items[1])


def test_a_store_is_listed_by_its_url(tmp_path):
    system, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("cat/0.png", "dog/1.png", "dog/readme.md"):
        system.pipe(f"{root}/{name}", png())
    made = ta.manifest(f"memory:/{root}/", out=tmp_path / "m.parquet")
    opened = manifest.Manifest(tmp_path / "m.parquet")
    assert [(i.id, i.label) for i in opened.items(0, 9)] == [
        ("cat/0.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    assert made.notes[-1]["kind"] == "other endings"
    assert manifest.read(opened.items(1, 1)[0]) == png()
    with pytest.raises(DataError, match=r"does not exist|holds no images"):
        ta.manifest("memory://nowhere/", out=tmp_path / "m.parquet")


def test_an_existing_out_survives_a_failure(tmp_path):
    save(tmp_path / "m.parquet", id=["a"], uri=["x"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        ta.manifest(tmp_path / "empty", out=tmp_path / "m.parquet")
    assert len(rows_of(tmp_path / "m.parquet")) == 1
    with pytest.raises(DataError, match=r"--out must name a \.parquet"):
        ta.manifest(tmp_path / "empty", out=tmp_path / "m.csv")


@pytest.mark.parametrize("group", [1, 3, 7, 100])
def test_slices_do_not_depend_on_row_groups(tmp_path, group):
    table = pa.table({"id": [f"{i}" for i in range(20)], "uri": ["x.png"] * 20})
    parquet.write_table(table, tmp_path / "m.parquet", row_group_size=group)
    opened = manifest.Manifest(tmp_path / "m.parquet")
    for start, count in ((0, 5), (4, 4), (18, 9), (0, 100), (19, 1), (6, 3)):
        found = [item.id for item in opened.items(start, count)]
        assert found == [str(i) for i in range(start, min(start + count, 20))]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"uri": ["x"]}, "no column id"),
        ({"id": ["x"]}, "no column uri or bytes"),
        ({"id": ["x"], "uri": [3]}, "strings are needed"),
        ({"id": [1.5], "uri": ["x"]}, "strings or integers are needed"),
        ({"id": ["x"], "bytes": ["x"]}, "binary values are needed"),
        ({"id": ["x"], "uri": ["x"], "offset": [1]}, "both of the columns offset and length"),
        ({"id": pa.array([], pa.string()), "uri": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_missing_columns_are_named(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        manifest.Manifest(save(tmp_path / "m.parquet", **columns))


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="no parquet file"):
        manifest.Manifest(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="does not exist"):
        manifest.Manifest(tmp_path / "other.parquet")
    assert not manifest.is_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize("kept", [8_000_000, 7])
@pytest.mark.parametrize("ids", [["a", "b"] * 2, [*map(str, range(50)), "17"], [5, 6, 5]])
def test_repeated_ids_are_named(tmp_path, monkeypatch, kept, ids):
    monkeypatch.setattr(manifest, "KEPT", kept)
    monkeypatch.setattr(manifest, "SLICE", 4)
    opened = manifest.Manifest(save(tmp_path / "m.parquet", id=ids, uri=["x"] * len(ids)))
    again = next(str(i) for i in ids if ids.count(i) > 1)
    with pytest.raises(DataError, match=f"more than one row: .*'{again}'"):
        opened.check_ids()


def test_unique_ids_pass_and_a_missing_one_is_named(tmp_path):
    manifest.Manifest(save(tmp_path / "m.parquet", id=[*map(str, range(999))], uri=["x"] * 999)
                      ).check_ids()  # fmt: skip
    opened = manifest.Manifest(save(tmp_path / "n.parquet", id=["a", None], uri=["x"] * 2))
    with pytest.raises(DataError, match="row 1 has no id"):
        opened.check_ids()


def test_equal_hashes_of_different_ids_are_no_repetition(monkeypatch):
    monkeypatch.setattr(manifest, "hashes_of", lambda c: np.zeros(len(c), np.uint64))
    assert manifest.repeated(lambda: [pa.array(["a", "b", "c"])], 3) == []
    assert manifest.repeated(lambda: [pa.array(["a", "b", "a"])], 3) == ["a"]


def test_relative_uris_lie_beside_the_manifest(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(png())
    opened = manifest.Manifest(save(tmp_path / "m.parquet", id=["a"], uri=["d/a.png"]))
    assert manifest.read(opened.items(0, 1)[0]) == png()
    assert opened.fingerprint == manifest.digest(str(tmp_path / "m.parquet"))


def _told(made):
    return {n["kind"]: n["count"] for n in made.notes}


def test_what_is_no_file_in_a_folder_is_counted(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "b.png").symlink_to(folder / "gone.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "c.png")
    made = ta.manifest(folder, out=tmp_path / "m.parquet")
    assert made.rows == 1
    assert _told(made) == {"no files": 1 + hasattr(os, "mkfifo")}


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [("x.png", tarfile.SYMTYPE, "no files"), ("x.png", tarfile.LNKTYPE, "no files"),
     ("x.png", tarfile.FIFOTYPE, "no files"), ("._x.png", tarfile.REGTYPE, "hidden"),
     ("__MACOSX/x.png", tarfile.REGTYPE, "hidden"), ("dir", tarfile.DIRTYPE, None)],
)  # fmt: skip
def test_what_is_no_image_in_a_tar_is_counted(tmp_path, name, kind, told):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, (member, form) in enumerate((("a.png", tarfile.REGTYPE), (name, kind))):
            about = tarfile.TarInfo(member)
            about.type, about.linkname = form, "a.png"
            about.size = len(png(i)) if form == tarfile.REGTYPE else 0
            tar.addfile(about, io.BytesIO(png(i)))
    made = ta.manifest(tmp_path / "a.tar", out=tmp_path / "m.parquet")
    assert made.rows == 1
    assert _told(made) == ({told: 1} if told else {})


def test_what_follows_a_damaged_header_of_a_tar_is_told(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(3):
            about = tarfile.TarInfo(f"{i}.png")
            about.size = len(png(i))
            tar.addfile(about, io.BytesIO(png(i)))
    with tarfile.open(tmp_path / "a.tar") as tar:
        second = tar.getmembers()[1].offset
    raw = bytearray((tmp_path / "a.tar").read_bytes())
    raw[second : second + 512] = b"x" * 512
    (tmp_path / "a.tar").write_bytes(raw)
    made = ta.manifest(tmp_path / "a.tar", out=tmp_path / "m.parquet")
    assert made.rows == 1
    assert _told(made) == {"damaged archives": 1}
