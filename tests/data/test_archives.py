"""Archives: WebDataset shards and packed folders, and members that must not be used."""

from __future__ import annotations

import io
import json
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import tellapart as ta
from tellapart.data import archives, kind_of, open_source
from tellapart.errors import DataError


def png(seed, side=16):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "PNG")
    return raw.getvalue()


def wav(seed, seconds=0.3, rate=8000):
    values = np.random.default_rng(seed).normal(0, 3000, int(seconds * rate)).astype("<i2")
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + values.nbytes, b"WAVE", b"fmt ", 16, 1, 1,
                       rate, 2 * rate, 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", values.nbytes) + values.tobytes()


def npy(array):
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


def pack(path, files):
    """An archive of {name: bytes} in the format of its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in files.items():
                archive.writestr(name, raw)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def samples(count=6, start=0, label="cls"):
    found = {}
    for i in range(start, start + count):
        found[f"{i:04d}.png"] = png(i)
        about = b"%d" % (i % 2) if label == "cls" else json.dumps({"label": "ab"[i % 2]}).encode()
        found[f"{i:04d}.{label}"] = about
    return found


ENDINGS = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("label", ["cls", "json"])
def test_keys_become_ids_and_companions_labels(tmp_path, ending, label):
    path = pack(tmp_path / f"shard{ending}", samples(label=label))
    assert kind_of(path) == "images"
    source = open_source(path)
    assert source.ids == [f"{i:04d}" for i in range(6)]
    assert list(source.classes) == (["0", "1"] if label == "cls" else ["a", "b"])
    assert source.labels.tolist() == [0, 1] * 3
    assert np.array_equal(source.image(3), np.asarray(Image.open(io.BytesIO(png(3)))))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]  # nothing beside it


@pytest.mark.parametrize("how", ["folder", "braces", "list", "wildcard"])
def test_shards_are_one_set(tmp_path, how):
    for number, name in enumerate(("000", "001", "002")):
        pack(tmp_path / f"shard-{name}.tar", samples(4, start=4 * number))
    spec = {
        "folder": f"{tmp_path}",
        "braces": f"{tmp_path}/shard-{{000..002}}.tar",
        "list": f"{tmp_path}/shard-{{000,001,002}}.tar",
        "wildcard": f"{tmp_path}/shard-*.tar",
    }[how]
    assert kind_of(spec) == "images"
    source = open_source(spec)
    assert source.ids == [f"{i:04d}" for i in range(12)]
    assert source.labels.tolist() == [0, 1] * 6


def test_a_missing_shard_is_named(tmp_path):
    pack(tmp_path / "s-0.tar", samples(4))
    with pytest.raises(DataError, match=r"1 of the 2 files of .* do not exist, the first: .*s-1"):
        open_source(f"{tmp_path}/s-{{0..1}}.tar")


@pytest.mark.parametrize("names", [("train-0", "val-0"), ("train/0", "test/0")])
def test_shards_of_splits_make_splits(tmp_path, names):
    for number, name in enumerate(names):
        path = tmp_path / f"{name}.tar"
        path.parent.mkdir(exist_ok=True)
        pack(path, samples(4, start=4 * number))
    source = open_source(tmp_path)
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 4, "test": 4}


def test_equal_keys_in_two_shards_are_two_items(tmp_path):
    pack(tmp_path / "a.tar", samples(3))
    pack(tmp_path / "b.tar", {k: v if k.endswith("cls") else png(int(k[:4]) + 50)
                              for k, v in samples(3).items()})  # fmt: skip
    source = open_source(tmp_path)
    assert len(source) == 6
    assert len(set(source.ids)) == 6


def test_several_items_of_one_sample_are_all_used(tmp_path):
    files = {}
    for i in range(3):
        files |= {f"{i}.left.png": png(i), f"{i}.right.png": png(10 + i), f"{i}.cls": b"%d" % i}
    source = open_source(pack(tmp_path / "stereo.tar", files))
    assert source.ids == [f"{i}.{side}.png" for i in range(3) for side in ("left", "right")]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    source = open_source(f"{tmp_path}/stereo.tar#image=left.png")
    assert source.ids == ["0", "1", "2"]


def test_texts_beside_images_are_labels_where_they_repeat(tmp_path):
    few = {f"{i}.{e}": png(i) if e == "png" else ["cat", "dog"][i % 2].encode()
           for i in range(6) for e in ("png", "txt")}  # fmt: skip
    assert open_source(pack(tmp_path / "few.tar", few)).classes == ["cat", "dog"]
    many = {n: raw if n.endswith("png") else n.encode() for n, raw in few.items()}
    source = open_source(pack(tmp_path / "many.tar", many))
    assert source.labels is None
    assert any("descriptions" in note["text"] for note in source.notes)
    assert len(open_source(f"{tmp_path}/many.tar#label=txt").classes) == 6


@pytest.mark.parametrize("order", ["mixed", "split"])
def test_members_may_come_in_any_order(tmp_path, order):
    names = sorted(samples(), key=lambda n: n.split(".")[1] if order == "split" else n[::-1])
    source = open_source(pack(tmp_path / "x.tar", {n: samples()[n] for n in names}))
    assert dict(zip(source.ids, source.labels.tolist(), strict=True))["0003"] == 1


def test_sounds_sentences_and_arrays_are_members_too(tmp_path):
    sounds = {f"{i}.{e}": wav(i) if e == "wav" else b"%d" % (i % 2)
              for i in range(4) for e in ("wav", "cls")}  # fmt: skip
    source = open_source(pack(tmp_path / "sounds.tar", sounds))
    assert (source.kind, source.ids, source.labels.tolist()) == ("audio", list("0123"), [0, 1] * 2)
    texts = {f"{i}.{e}": f"sentence\n number {i}".encode() if e == "txt" else b"%d" % (i % 2)
             for i in range(4) for e in ("txt", "cls")}  # fmt: skip
    source = open_source(pack(tmp_path / "texts.tar", texts))
    assert (source.kind, source.text(2), source.labels[3]) == ("text", "sentence number 2", 1)
    values = {f"{i}.npy": npy(np.random.default_rng(i).random((40, 2), np.float32))
              for i in range(4)}  # fmt: skip
    source = open_source(pack(tmp_path / "values.tar", values))
    assert (source.kind, source.ids) == ("series", list("0123"))


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_packed_folder_is_read_like_the_folder(tmp_path, photos, ending):
    files = {p.relative_to(photos.parent).as_posix(): p.read_bytes()
             for p in sorted(photos.rglob("*.png"))}  # fmt: skip
    files |= {"__MACOSX/photos/._1.png": b"x", "photos/readme.md": b"words"}
    path = pack(tmp_path / f"packed{ending}", files)
    assert kind_of(path) == "images"
    source, folder = open_source(path, image_size=32), open_source(photos, image_size=32)
    assert source.name == str(path)
    assert [f"photos/{i}" for i in folder.ids] == source.ids
    assert source.classes == folder.classes
    assert source.hashes == folder.hashes
    text = " ".join(note["text"] for note in source.notes)
    assert ".md (1)" in text
    assert "1 hidden" in text


def hostile_tar(path):
    with tarfile.open(path, "w") as archive:

        def add(name, raw=b"", **about):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(raw))

        for i in range(3):
            add(f"good/{i}.png", png(i))
        add("../../out.png", png(7))
        add("/tmp/absolute.png", png(8))
        add("a/../../b.png", png(9))
        add("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("hard.png", type=tarfile.LNKTYPE, linkname="good/0.png")
        add("pipe.png", type=tarfile.FIFOTYPE)
        add("device.png", type=tarfile.CHRTYPE)
    return path, {"traversal": 3, "link": 2, "not a regular file": 2}


def hostile_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.writestr(f"good/{i}.png", png(i))
        for name in ("../../out.png", "/tmp/absolute.png", "a\\..\\..\\b.png", "C:\\x.png"):
            archive.writestr(zipfile.ZipInfo(name), png(7))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret.png", png(9))
        archive.writestr("damaged.png", png(11))
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"secret.png") - 46  # its entry in the directory at the end
    raw[central + 8] |= 1  # the flag of encryption
    place = raw.index(png(11))
    raw[place + 60 : place + 64] = b"\0\1\2\3"  # the checksum does not fit
    path.write_bytes(raw)
    return path, {"traversal": 4, "link": 1, "encrypted": 1, "damaged": 1}


@pytest.mark.parametrize("make", [hostile_tar, hostile_zip])
def test_members_that_are_not_safe_are_left_out_and_listed(tmp_path, make):
    home = tmp_path / "in" / "here"
    home.mkdir(parents=True)
    path, expected = make(home / ("x.tar" if make is hostile_tar else "x.zip"))
    before = {p for p in tmp_path.rglob("*")}
    source = open_source(path, cache=tmp_path / "cache")
    assert source.ids == [f"good/{i}.png" for i in range(3)]
    kinds = [s["reason"].partition(":")[0] for s in source.skipped]
    assert {kind: kinds.count(kind) for kind in kinds} == expected
    new = {p for p in tmp_path.rglob("*")} - before
    assert all((tmp_path / "cache") in (p, *p.parents) for p in new)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_the_whole_part_of_a_damaged_archive_is_used_and_the_rest_named(tmp_path, ending, keep):
    path = pack(tmp_path / f"x{ending}", {f"{i}.png": png(i, 32) for i in range(20)})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    if ending == ".zip":  # its list of members stands at the end
        with pytest.raises(DataError, match=r"x.zip.*damaged"):
            open_source(path)
        return
    source = open_source(path)
    assert 2 <= len(source) < 20
    assert [s["path"] for s in source.skipped]
    assert "damaged" in source.skipped[-1]["reason"]


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = pack(tmp_path / "x.tar", {f"{i}.png": png(i) for i in range(6)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"3.png")] ^= 0x55
    path.write_bytes(raw)
    source = open_source(path)
    assert source.ids == ["0", "1", "2"]
    assert "header after 2.png" in source.skipped[0]["reason"]


@pytest.mark.parametrize("raw", [b"", b"not an archive", bytes(2000)])
@pytest.mark.parametrize("ending", [".tar", ".zip", ".tar.gz"])
def test_what_is_no_archive_is_one_error(tmp_path, raw, ending):
    (tmp_path / f"x{ending}").write_bytes(raw)
    with pytest.raises(DataError, match="x"):
        open_source(tmp_path / f"x{ending}")


def test_pickled_members_are_never_read(tmp_path):
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    files = {f"{i}.{e}": png(i) if e == "png" else bomb for i in range(3)
             for e in ("png", "pyd", "pickle", "pth")}  # fmt: skip
    source = open_source(pack(tmp_path / "x.tar", files))
    assert len(source) == 3
    assert not (tmp_path / "ran").exists()
    assert any(".pickle (3)" in note["text"] for note in source.notes)


def test_an_archive_may_not_outgrow_the_cache(tmp_path):
    bomb = pack(tmp_path / "bomb.zip", {"a/1.png": bytes(3_000_000), "b/2.png": png(1)})
    with pytest.raises(DataError, match="--cache-limit"):
        open_source(bomb, cache=tmp_path / "cache", cache_limit=0.001)


def test_columns_of_samples_are_named(tmp_path):
    files = {}
    for i in range(4):
        about = {"kind": "xy"[i % 2], "part": "test" if i == 3 else "train", "name": f"n{i}"}
        files |= {f"{i}.png": png(i), f"{i}.json": json.dumps(about).encode()}
    path = pack(tmp_path / "x.tar", files)
    source = open_source(f"{path}#label=kind,split=part,id=name")
    assert source.ids == ["n0", "n1", "n2", "n3"]
    assert source.classes == ["x", "y"]
    assert len(source.split("test")) == 1
    with pytest.raises(DataError, match=r"no column 'other' for label; its columns: kind, name"):
        open_source(f"{path}#label=other")


def test_archives_beside_images_are_counted(tmp_path, photos):
    pack(photos / "more.zip", {"1.png": png(1)})
    notes = " ".join(note["text"] for note in open_source(photos, image_size=32).notes)
    assert ".zip (1)" in notes
    assert "archives; give the archive itself" in notes


def test_real_webdataset_writers_are_understood(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.TarWriter(str(tmp_path / "w.tar")) as sink:
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
            sink.write({"__key__": f"s{i}", "png": pixels, "cls": i % 2, "json": {"n": i}})
    source = open_source(tmp_path / "w.tar")
    assert source.ids == ["s0", "s1", "s2", "s3"]
    assert source.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("kind", ["shard", "folder"])
def test_training_and_embedding_read_archives(tmp_path, kind):
    files = samples(24) if kind == "shard" else {f"{'ab'[i % 2]}/{i}.png": png(i)
                                                  for i in range(24)}  # fmt: skip
    path = pack(tmp_path / ("x.tar" if kind == "shard" else "x.zip"), files)
    run = tmp_path / "run"
    ta.train("simclr", data=path, out=run, steps=2, batch_size=8, threads=1)
    assert ta.embed(run, data=path, out=tmp_path / "vectors").ids == open_source(path).ids


def test_members_are_read_one_after_the_other(tmp_path):
    path = pack(tmp_path / "x.tar.gz", {"./a.png": png(0), "b/": b"", "b/c.png": png(1)})
    found = {m.name: m.read() for m in archives.members(path) if isinstance(m, archives.Member)}
    assert found["a.png"] == png(0)
    assert found["b/c.png"] == png(1)
