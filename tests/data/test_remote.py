"""Files of stores: S3 by moto's server, HTTP by a server on loopback, memory; failures in words."""

from __future__ import annotations

import http.server
import io
import json
import sys
import tarfile
import threading
import uuid

import fsspec
import numpy as np
import pytest
from PIL import Image

import tellapart as ta
from tellapart.data import copies, kind_of, open_source, remote
from tellapart.errors import DataError, MissingExtraError, StoreError

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; answers each name once with the statuses that the server holds for it."""

    def do_GET(self):
        planned = self.server.planned.get(self.path, [])
        if planned:
            self.send_error(planned.pop(0))
            return
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """A server of the folder `web`, and its address."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "web"
    folder.mkdir()

    def handler(*args):
        return Handler(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.planned = {}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def s3_server():
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """An empty bucket: its url."""
    import s3fs

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "PNG")
    return raw.getvalue()


def shard(count, start):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for i in range(start, start + count):
            for name, held in ((f"{i:04d}.png", png(i)), (f"{i:04d}.cls", b"%d" % (i % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(held)
                archive.addfile(info, io.BytesIO(held))
    return raw.getvalue()


def put(url, raw):
    with fsspec.open(url, "wb") as file:
        file.write(raw)


@pytest.mark.parametrize("raw", [b"some bytes", b""])
def test_the_bytes_of_a_file_come_from_every_store(tmp_path, web, bucket, raw):
    (web.folder / "a b.bin").write_bytes(raw)
    (tmp_path / "a b.bin").write_bytes(raw)
    put(f"{bucket}/in/a b.bin", raw)
    put("memory://store/a b.bin", raw)
    for uri in (
        f"{web.url}/a%20b.bin",
        f"{bucket}/in/a b.bin",
        "memory://store/a b.bin",
        f"file://{tmp_path}/a%20b.bin",
        str(tmp_path / "a b.bin"),
    ):
        assert remote.open_bytes(uri) == raw, uri


def test_a_file_that_is_not_there_is_an_error_of_this_file(tmp_path, web, bucket):
    for uri in (f"{web.url}/no.png", f"{bucket}/no.png", "memory://no.png", str(tmp_path / "no")):
        with pytest.raises(FileNotFoundError):
            remote.open_bytes(uri)


def test_a_file_above_the_limit_is_not_read(web, bucket):
    (web.folder / "large").write_bytes(bytes(100))
    put(f"{bucket}/large", bytes(100))
    for uri in (f"{web.url}/large", f"{bucket}/large"):
        assert len(remote.open_bytes(uri, 100)) == 100
        with pytest.raises(ValueError, match="too large"):
            remote.open_bytes(uri, 99)


@pytest.mark.parametrize("statuses", [[503], [500, 429], [408, 502]])
def test_passing_failures_are_repeated(web, quick, statuses):
    (web.folder / "x").write_bytes(b"here")
    web.planned["/x"] = list(statuses)
    assert remote.open_bytes(f"{web.url}/x") == b"here"
    assert not web.planned["/x"]


def test_a_store_that_fails_each_time_is_named(web, quick):
    web.planned["/x"] = [503] * 5
    with pytest.raises(StoreError, match=rf"^{web.url} did not answer 3 times .*503"):
        remote.open_bytes(f"{web.url}/x")
    assert len(web.planned["/x"]) == 2


@pytest.mark.parametrize("status", [401, 403, 400])
def test_a_refusal_is_not_repeated_and_shows_no_secret(web, quick, status):
    web.planned["/x?sig=secret"] = [status] * 2
    with pytest.raises(StoreError) as raised:
        remote.open_bytes(f"{web.url}/x?sig=secret")
    assert len(web.planned["/x?sig=secret"]) == 1
    assert web.url in str(raised.value)
    assert "secret" not in str(raised.value)
    assert ("credentials" in str(raised.value)) == (status in (401, 403))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.png", "s3://nowhere/x.png"])
def test_a_store_that_cannot_be_reached_is_named(bucket, quick, monkeypatch, url):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="did not answer 3 times"):
        remote.open_bytes(url)


def test_credentials_that_fail_are_one_error(bucket, quick, monkeypatch):
    import s3fs

    def refused(*args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", refused)
    with pytest.raises(StoreError, match=r"refuses .*Access Denied.*AWS_ACCESS_KEY_ID"):
        remote.open_bytes(f"{bucket}/x.png")


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gcs"),
        ("az://box/x", "adlfs", "azure"),
        ("https://host/x", "aiohttp", "http"),
        ("sftp://host/x", "paramiko", "sftp"),
    ],
)
def test_the_package_of_a_protocol_is_named_where_it_is_missing(monkeypatch, url, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{package} is not installed; type: pip install 'tellapart\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=message):
        remote.open_bytes(url)


def test_other_protocols_are_refused_by_name():
    with pytest.raises(DataError, match="unknown protocol 'htps'; did you mean 'https'"):
        remote.open_bytes("htps://host/x")


# ---------------------------------------------------------------- data sets of stores


@pytest.fixture
def store(request, web, bucket):
    """The url of an empty folder of a store, and how a file is put there."""
    if request.param == "http":
        return web.url, lambda name, raw: write(web.folder / name, raw)
    base = bucket if request.param == "s3" else f"memory://m{uuid.uuid4().hex[:8]}"
    return base, lambda name, raw: put(f"{base}/{name}", raw)


def write(path, raw):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


STORES = pytest.mark.parametrize("store", ["s3", "http", "memory"], indirect=True)


@STORES
def test_a_folder_keeps_its_classes_and_splits(store):
    base, add = store
    for i in range(8):
        add(f"set/{'train' if i < 6 else 'test'}/{'ab'[i % 2]}/{i}.png", png(i))
    add("set/readme.md", b"words")
    add("set/.hidden.png", b"x")
    url = f"{base}/set/"
    assert kind_of(url) == "images"
    source = open_source(url)
    assert source.name == url
    assert sorted(source.ids)[0] == "test/a/6.png"
    assert source.classes == ["a", "b"]
    assert {n: len(rows) for n, rows in source.splits.items()} == {"train": 6, "test": 2}
    text = " ".join(note["text"] for note in source.notes)
    assert "fetched from" in text
    assert ".md (1)" in text


@STORES
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_a_table_names_files_beside_it(store, ending):
    pa = pytest.importorskip("pyarrow")
    base, add = store
    rows = [{"path": f"in/a {i}.png", "label": "xy"[i % 2]} for i in range(6)]
    for i in range(6):
        add(f"d/in/a {i}.png", png(i))
    rows.append({"path": "in/lost.png", "label": "x"})
    if ending == ".parquet":
        raw = io.BytesIO()
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), raw)
        add("d/t.parquet", raw.getvalue())
    elif ending == ".csv":
        add("d/t.csv", b"path,label\n" + "".join(
            f"{r['path']},{r['label']}\n" for r in rows).encode())  # fmt: skip
    else:
        add("d/t.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert kind_of(f"{base}/d/t{ending}") == "images"
    source = open_source(f"{base}/d/t{ending}")
    assert source.ids == [r["path"] for r in rows[:6]]
    assert source.labels.tolist() == [0, 1] * 3
    assert [s["path"] for s in source.skipped] == ["in/lost.png"]


@STORES
def test_one_archive_and_shards_in_braces(store):
    base, add = store
    for number in range(2):
        add(f"s-{number:02d}.tar", shard(4, start=4 * number))
    source = open_source(f"{base}/s-{{00..01}}.tar")
    assert source.ids == [f"{i:04d}" for i in range(8)]
    assert len(open_source(f"{base}/s-01.tar")) == 4
    with pytest.raises(DataError, match=r"1 file of 3 do not exist, the first: .*s-02.tar"):
        open_source(f"{base}/s-{{00..02}}.tar")


@STORES
def test_what_has_changed_is_fetched_again(store, monkeypatch):
    base, add = store
    monkeypatch.setattr(copies, "REMEMBERED", 1e-9)
    for i in range(3):
        add(f"set/{i}.png", png(i))
    first = open_source(f"{base}/set/")
    assert open_source(f"{base}/set/").fingerprint == first.fingerprint
    add("set/3.png", png(3))
    assert len(open_source(f"{base}/set/")) == 4


def test_local_tables_and_lists_name_files_of_stores(tmp_path, web, bucket):
    names = []
    for i in range(6):
        write(web.folder / f"{i}.png", png(i))
        put(f"{bucket}/{i}.png", png(i))
        names.append(f"{web.url}/{i}.png?x=1" if i % 2 else f"{bucket}/{i}.png")
    names.append(f"{bucket}/lost.png")
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(["uri,label", *lines]))
    (tmp_path / "list.txt").write_text("\n".join(names))
    rows = [json.dumps({"uri": n, "label": "ab"[i % 2]}) for i, n in enumerate(names)]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    for ending in ("csv", "txt", "jsonl"):
        source = open_source(tmp_path / f"list.{ending}")
        assert source.ids[:2] == [names[0], f"{web.url}/1.png"]
        assert len(source) == 6
        assert [s["path"] for s in source.skipped] == [names[6]]
        assert (source.labels is None) == (ending == "txt")


def test_files_of_one_list_may_lie_here_and_there(tmp_path):
    write(tmp_path / "here.png", png(0))
    put("memory://there/1.png", png(1))
    put("memory://there/2.png", png(2))
    (tmp_path / "l.txt").write_text("here.png\nmemory://there/1.png\nmemory://there/2.png\n")
    assert len(open_source(tmp_path / "l.txt")) == 3


def test_a_store_that_refuses_ends_a_list_with_one_error(tmp_path, web, quick):
    write(web.folder / "0.png", png(0))
    web.planned["/1.png"] = [403] * 9
    (tmp_path / "l.txt").write_text(f"{web.url}/0.png\n{web.url}/1.png\n")
    with pytest.raises(StoreError, match="credentials"):
        open_source(tmp_path / "l.txt")


def test_one_file_and_a_local_url_are_data(tmp_path, web):
    write(web.folder / "s.txt", b"one sentence\nanother one\nand a third\n")
    source = open_source(f"{web.url}/s.txt")
    assert (source.kind, source.text(1)) == ("text", "another one")
    for i in range(3):
        write(tmp_path / "with space" / f"{i}.png", png(i))
    source = open_source(f"file://{tmp_path}/with%20space")
    assert len(source) == 3
    assert not any(note["kind"] == "fetched" for note in source.notes)


@STORES
def test_nothing_there_is_one_error(store):
    base, _ = store
    with pytest.raises(DataError, match=r"nothing/here|does not exist|no files"):
        open_source(f"{base}/nothing/here.csv")


def test_a_name_that_leads_out_of_the_folder_is_left_out(monkeypatch):
    base = f"memory://m{uuid.uuid4().hex[:8]}"
    for i in range(3):
        put(f"{base}/{i}.png", png(i))
    real = fsspec.implementations.memory.MemoryFileSystem.find

    def find(self, path, **how):
        found = dict(real(self, path, **how))
        return {**found, f"{path}/../../out.png": {"type": "file", "size": 1}}

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "find", find)
    source = open_source(f"{base}/")
    assert len(source) == 3
    assert "traversal" in source.skipped[0]["reason"]


def test_more_than_the_cache_holds_is_refused_before_it_is_fetched(bucket, tmp_path):
    put(f"{bucket}/a/1.png", bytes(2000))
    put(f"{bucket}/a/2.png", bytes(2000))
    with pytest.raises(DataError, match="--cache-limit"):
        open_source(f"{bucket}/a", cache=tmp_path, cache_limit=3e-6)


def test_a_training_on_a_store_can_be_embedded(bucket, tmp_path):
    for i in range(24):
        put(f"{bucket}/set/{'ab'[i % 2]}/{i}.png", png(i))
    run = tmp_path / "run"
    ta.train("simclr", data=f"{bucket}/set", out=run, steps=2, batch_size=8, threads=1)
    assert len(ta.embed(run, data=f"{bucket}/set", out=tmp_path / "v").ids) == 24
