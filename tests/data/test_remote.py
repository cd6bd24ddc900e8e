"""Files of stores: S3 by moto's server, HTTP by a server on loopback, memory; failures in words."""

from __future__ import annotations

import http.server
import sys
import threading
import uuid

import fsspec
import pytest

from tellapart.data import remote
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
