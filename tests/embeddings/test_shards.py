"""Shards: the same vectors by every courier, each id once, whatever dies; damaged folders."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import tellapart as ta
from tellapart import cli
from tellapart.embeddings import couriers, shard_worker, shards
from tellapart.embeddings.store import Store
from tellapart.errors import ConfigError, DataError, IncompleteError
from tellapart.runtime.locks import Lock

ROWS = 22


def png(seed):
    file = io.BytesIO()
    random = np.random.default_rng(seed)
    h, w = random.integers(30, 60, 2)
    pixels = random.integers(0, 120, (h, w, 3), dtype=np.uint8)
    pixels[..., seed % 3] += 130
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def save(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run, its photos, their manifest with one broken and one missing file, and the vectors."""
    home = tmp_path_factory.mktemp("shards")
    for i in range(ROWS - 2):
        path = home / "photos" / ("red", "green", "blue")[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    torch.set_num_threads(1)
    ta.train("simclr", data=home / "photos", out=home / "run", steps=2, batch_size=8, image_size=32)
    one = ta.embed(home / "run", data=home / "photos", out=home / "one.npz")
    (home / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG and no more")
    (home / "photos" / "red" / "gone.png").write_bytes(png(99))
    ta.manifest(home / "photos", out=home / "photos.parquet")
    (home / "photos" / "red" / "gone.png").unlink()
    return home, {name: vector for name, vector in zip(one.ids, one.vectors, strict=True)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(shard_worker, "WAITS", (0.0, 0.0))


def embed(home, out, **options):
    about = {"data": home / "photos.parquet", "shard_size": 5} | options
    return ta.embed(home / "run", out=out, **about)


def contents(folder):
    """All files of a folder by name, locks and scratch files aside."""
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if not p.name.startswith(".")}


def same_parts(a, b):
    a, b = contents(a), contents(b)
    assert a.keys() == b.keys()
    assert all(a[name] == b[name] for name in a if name != shards.PLAN)


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """The folder of shards that one process wrote."""
    folder = tmp_path_factory.mktemp("whole") / "vectors"
    embed(home[0], folder)
    return folder


def test_shards_hold_the_vectors_of_the_whole(home, whole):
    loaded = ta.Embeddings.load(whole)
    assert len(loaded) == ROWS - 2
    assert set(loaded.ids) == home[1].keys()
    for name, vector in zip(loaded.ids, loaded.vectors, strict=True):
        np.testing.assert_allclose(vector, home[1][name], rtol=1e-5, atol=1e-5)
    assert loaded.provenance["classes"] == ["blue", "green", "red"]
    names = [loaded.provenance["classes"][i] for i in loaded.labels]
    assert names == [name.partition("/")[0] for name in loaded.ids]


def test_what_cannot_be_used_is_a_row_with_its_reason(home, whole):
    errors = [r for p in sorted(whole.glob("errors-*")) for r in parquet.read_table(p).to_pylist()]
    assert {e["id"] for e in errors} == {"red/broken.png", "red/gone.png"}
    reasons = {e["id"]: e["reason"] for e in errors}
    assert "no such file" in reasons["red/gone.png"]
    assert "PNG" in reasons["red/broken.png"]


def test_a_check_counts_every_id(home, whole):
    found = embed(home[0], whole, check=True, shard_size=None)
    assert (found.vectors, found.errors, found.checked) == (ROWS - 2, 2, True)


def test_float16_halves_the_vectors(home, tmp_path):
    embed(home[0], tmp_path / "v", precision="float16")
    kind = parquet.read_schema(tmp_path / "v" / "part-00000.parquet").field("vector").type
    assert kind.value_type == pa.float16()
    loaded = ta.Embeddings.load(tmp_path / "v")
    for name, vector in zip(loaded.ids, loaded.vectors, strict=True):
        np.testing.assert_allclose(vector, home[1][name], rtol=2e-3, atol=1e-3)


def test_a_second_call_does_nothing_and_a_lost_part_is_made_again(home, whole, tmp_path):
    embed(home[0], tmp_path / "v")
    assert embed(home[0], tmp_path / "v").shards == 0
    (tmp_path / "v" / "part-00002.parquet").unlink()
    made = embed(home[0], tmp_path / "v")
    assert (made.shards, made.kept) == (1, 4)
    same_parts(tmp_path / "v", whole)


def test_the_elements_of_an_array_job_share_the_shards(home, whole, tmp_path):
    counts = [embed(home[0], tmp_path / "v", worker=f"{i}/3").shards for i in range(3)]
    assert counts == [2, 2, 1]
    same_parts(tmp_path / "v", whole)


def test_items_may_be_bytes_or_parts_of_a_file(home, tmp_path):
    raw = [png(i) for i in range(6)]
    (tmp_path / "all.bin").write_bytes(b"".join(raw))
    lengths = [len(r) for r in raw]
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    ids = [f"{('red', 'green', 'blue')[i % 3]}/{i:02d}.png" for i in range(6)]
    save(tmp_path / "a.parquet", id=ids, bytes=raw)
    save(tmp_path / "b.parquet", id=ids, uri=["all.bin"] * 6, offset=offsets, length=lengths)
    for name in ("a", "b"):
        embed(home[0], tmp_path / name, data=tmp_path / f"{name}.parquet")
        loaded = ta.Embeddings.load(tmp_path / name)
        for i, vector in zip(loaded.ids, loaded.vectors, strict=True):
            np.testing.assert_allclose(vector, home[1][i], rtol=1e-5, atol=1e-5)


def test_pictures_of_one_size_are_seen_whole_as_by_one_machine(home, tmp_path):
    (tmp_path / "d").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "d" / f"{i}.png")
    ta.manifest(tmp_path / "d", out=tmp_path / "m.parquet")
    embed(home[0], tmp_path / "v", data=tmp_path / "m.parquet")
    one = ta.embed(home[0] / "run", data=tmp_path / "d", out=tmp_path / "one.npz")
    np.testing.assert_allclose(ta.Embeddings.load(tmp_path / "v").vectors, one.vectors, atol=1e-6)


# the plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"shard_size": 4}, "shard size"),
        ({"precision": "float16"}, "precision"),
        ({"output": "embedding"}, "output"),
        ({"image_size": 48}, r"view\.image_size"),
        ({"checkpoint": "other.pt"}, "encoder"),
        ({"data": "other.parquet"}, "manifest"),
    ],
)
def test_another_plan_is_refused_by_its_field(home, whole, tmp_path, options, field):
    before = contents(whole)
    if "data" in options:
        rows = parquet.read_table(home[0] / "photos.parquet")
        parquet.write_table(rows.slice(0, 9), tmp_path / "other.parquet")
        options = {"data": tmp_path / "other.parquet"}
    if "checkpoint" in options:
        state = torch.load(home[0] / "run" / "checkpoints" / "last.pt", weights_only=True)
        other = {k: v + 0.1 if v.is_floating_point() else v for k, v in state["encoder"].items()}
        torch.save({"encoder": other}, tmp_path / "other.pt")
        options = {"checkpoint": str(tmp_path / "other.pt")}
    with pytest.raises(DataError, match=f"begun with another {field} "):
        embed(home[0], whole, **options)
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', "another version"),
        ("{", "damaged"),
        ('{"format": 1, "manifest": 3}', "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_plan_of_another_version_or_damaged(home, tmp_path, text, message):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "plan.json").write_text(text)
    with pytest.raises(DataError, match=message):
        embed(home[0], tmp_path / "v")
    assert contents(tmp_path / "v") == {"plan.json": text.encode()}


def test_a_folder_with_other_files_is_refused(home, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "holiday.txt").write_text("x")
    with pytest.raises(DataError, match=r"other files \(holiday\.txt\)"):
        embed(home[0], tmp_path / "v")


# damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 10, 0.5, -4])
def test_a_part_that_is_cut_short_is_named_and_written_again(home, whole, tmp_path, keep, capsys):
    embed(home[0], tmp_path / "v")
    part = tmp_path / "v" / "part-00001.parquet"
    raw = part.read_bytes()
    part.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"part-00001\.parquet is cut short"):
        ta.Embeddings.load(tmp_path / "v")
    with pytest.raises(IncompleteError, match=r"part-00001\.parquet is cut short"):
        embed(home[0], tmp_path / "v", check=True)
    assert embed(home[0], tmp_path / "v").shards == 1
    assert "part-00001.parquet is cut short" in capsys.readouterr().err
    same_parts(tmp_path / "v", whole)


def test_a_part_of_another_encoder_is_found(home, whole, tmp_path):
    embed(home[0], tmp_path / "v", output="embedding")
    (tmp_path / "v" / "part-00001.parquet").write_bytes((whole / "part-00001.parquet").read_bytes())
    with pytest.raises(IncompleteError, match="another encoder"):
        embed(home[0], tmp_path / "v", check=True)
    with pytest.raises(DataError, match="another plan"):
        ta.Embeddings.load(tmp_path / "v")


def test_missing_parts_are_counted(home, whole, tmp_path):
    embed(home[0], tmp_path / "v", worker="0/2")
    with pytest.raises(IncompleteError, match="2 parts missing"):
        embed(home[0], tmp_path / "v", check=True)
    with pytest.raises(DataError, match="2 shards of 5 are missing"):
        ta.Embeddings.load(tmp_path / "v")
    with pytest.raises(DataError, match="holds no shards"):
        embed(home[0], tmp_path / "none", check=True)


def test_a_part_with_other_ids_is_found(home, tmp_path):
    embed(home[0], tmp_path / "v")
    part = tmp_path / "v" / "part-00001.parquet"
    table = parquet.read_table(part)
    ids = table["id"].to_pylist()
    wrong = table.set_column(0, "id", pa.array([ids[0], ids[0], *ids[2:]]))
    parquet.write_table(wrong, part)
    with pytest.raises(IncompleteError, match="do not have the ids"):
        embed(home[0], tmp_path / "v", check=True)


# the manifest ------------------------------------------------------------------------------------


def test_repeated_ids_are_refused_before_anything_is_written(home, tmp_path):
    photo = str(home[0] / "photos" / "red" / "00.png")
    save(tmp_path / "m.parquet", id=["a", "b", "a"], uri=[photo] * 3)
    with pytest.raises(DataError, match="'a'; ids must be unique"):
        embed(home[0], tmp_path / "v", data=tmp_path / "m.parquet")
    assert contents(tmp_path / "v") == {}


def test_uris_that_do_not_exist(home, tmp_path):
    save(tmp_path / "m.parquet", id=["a", "b"], uri=["no/a.png", "no/b.png"])
    with pytest.raises(DataError, match=r"none of 2 items .* the first: a: no such file"):
        embed(home[0], tmp_path / "v", data=tmp_path / "m.parquet")


def test_a_disk_that_vanishes_makes_failures_and_no_errors(home, tmp_path, monkeypatch):
    """A whole shard of files that are gone is the disk; later the same command goes on."""
    embed(home[0], tmp_path / "v", worker="0/5")
    (home[0] / "photos").rename(home[0] / "away")
    try:
        with pytest.raises(
            IncompleteError, match=r"4 shards of 5 .* none of its 5 items"
        ) as caught:
            embed(home[0], tmp_path / "v")
        assert caught.value.status == 3
    finally:
        (home[0] / "away").rename(home[0] / "photos")
    failed = json.loads((tmp_path / "v" / "failed.json").read_text())
    assert [one["shard"] for one in failed["shards"]] == [1, 2, 3, 4]
    assert len(list((tmp_path / "v").glob("part-*"))) == 1
    with pytest.raises(IncompleteError, match="parts missing"):
        embed(home[0], tmp_path / "v", check=True)
    embed(home[0], tmp_path / "v")
    assert not (tmp_path / "v" / "failed.json").exists()
    assert embed(home[0], tmp_path / "v", check=True).vectors == ROWS - 2


def test_a_shard_that_raises_is_tried_three_times(home, tmp_path, monkeypatch):
    real, calls = shards.write_part, []

    def flaky(store, plan, shard, *rest):
        calls.append(shard)
        if calls.count(shard) < (3 if shard == 1 else 1 if shard != 2 else 9):
            raise DataError("the disk is full")
        return real(store, plan, shard, *rest)

    monkeypatch.setattr(shards, "write_part", flaky)
    with pytest.raises(IncompleteError, match=r"1 shard of 5 .* the disk is full"):
        embed(home[0], tmp_path / "v")
    assert calls == [0, 1, 1, 1, 2, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": "many"}, "--workers must be a number"),
        ({"workers": 0}, "--workers must be a number"),
        ({"worker": "3"}, "--worker must be I/N"),
        ({"worker": "3/3"}, "--worker must be I/N"),
        ({"worker": "0/2", "workers": 2}, "exclude each other"),
        ({"shard_size": 0}, "--shard-size"),
        ({"output": "patches"}, "--output patches"),
        ({"map": "pca"}, "--map"),
        ({"data": "photos"}, "not a manifest"),
        ({"out": "v.npz"}, "--out FOLDER"),
    ],
)
def test_options_that_do_not_go_together(home, tmp_path, options, message):
    out = tmp_path / options.pop("out", "v")
    with pytest.raises(ConfigError, match=message):
        embed(home[0], out, **options)


def test_a_module_has_no_name_for_other_processes(home, tmp_path):
    encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    with pytest.raises(ConfigError, match="opens the encoder in other processes"):
        ta.embed(encoder, data=home[0] / "photos.parquet", out=tmp_path / "v", workers=2)


# drivers and workers -----------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_names_the_first(home, tmp_path):
    (tmp_path / "v").mkdir()
    lock = Lock(tmp_path / "v" / ".driver")
    code = (
        "import sys, time; from pathlib import Path; from tellapart.runtime.locks import Lock; "
        f"print(Lock(Path({str(lock.path)!r})).acquire(), flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"True\n"
        with pytest.raises(DataError, match=f"being written by process {other.pid}; .*--worker"):
            embed(home[0], tmp_path / "v")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert embed(home[0], tmp_path / "v").shards == 5


def test_two_attempts_at_one_shard_write_it_once(home, whole, tmp_path):
    embed(home[0], tmp_path / "v")
    job = job_of(home[0], tmp_path / "v")
    assert [done.failure for done in couriers.run_here(job, [3, 1])] == ["", ""]
    same_parts(tmp_path / "v", whole)


def test_workers_of_other_weights_are_refused(home, tmp_path):
    embed(home[0], tmp_path / "v")
    job = job_of(home[0], tmp_path / "v")
    other = dataclasses.replace(job.plan, encoder="0" * 32)
    with pytest.raises(DataError, match="has other weights"):
        shard_worker.open_encoder(dataclasses.replace(job, plan=other))


def job_of(home, out):
    plan = shards.read_plan(Store(out))
    return couriers.Job(str(home / "run"), "last", None, 16, str(home / "photos.parquet"),
                        str(out), plan)  # fmt: skip


def test_the_shards_of_a_killed_worker_go_to_the_next(home, whole, tmp_path, monkeypatch):
    """A worker process is killed with two shards in flight; another one is started."""
    real, killed = couriers._Process.give, []

    def give(self, shard):
        real(self, shard)
        if shard == 1 and not killed:
            killed.append(self.process.pid)
            os.kill(self.process.pid, signal.SIGKILL)

    embed(home[0], tmp_path / "v")
    for name in contents(tmp_path / "v").keys() - {"plan.json"}:
        (tmp_path / "v" / name).unlink()
    monkeypatch.setattr(couriers._Process, "give", give)
    done = list(couriers.run_processes(job_of(home[0], tmp_path / "v"), range(5), 1))
    assert sorted(d.shard for d in done) == [0, 1, 2, 3, 4]
    assert killed
    same_parts(tmp_path / "v", whole)


def test_a_shard_that_kills_its_workers_is_given_up(monkeypatch):
    from collections import deque

    class Dead:
        def __init__(self):
            self.shards = deque([7, 8])

            class process:
                wait = staticmethod(lambda: -9)

            self.process = process

    waiting, deaths = deque([9]), {7: 2, 8: 0, 9: 0}
    (done,) = couriers._after_death(Dead(), waiting, deaths)
    assert done.shard == 7
    assert "ended 3 times (exit status -9)" in done.failure
    assert list(waiting) == [9, 8]


def test_a_killed_driver_leaves_whole_parts_alone(home, whole, tmp_path):
    """kill -9 as soon as there are so many parts; the same command ends with the same files."""
    for parts in (1, 3):
        out = tmp_path / f"v{parts}"
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                embed(home[0], out)
            os._exit(0)
        deadline = time.monotonic() + 60
        while len(list(out.glob("part-*"))) < parts and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        first = contents(out)
        assert len(list(out.glob("part-*"))) >= parts
        embed(home[0], out)
        same_parts(out, whole)
        assert all(contents(out)[name] == raw for name, raw in first.items())
        assert not [p for p in out.iterdir() if p.name.endswith(".part")]


def test_ray_runs_the_same_shards(home, whole, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=80 * 2**20)  # fmt: skip
    try:
        assert embed(home[0], tmp_path / "v", workers="ray").shards == 5
    finally:
        ray.shutdown()
    same_parts(tmp_path / "v", whole)


def test_ray_that_is_missing_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ta.TellapartError, match=r"pip install 'tellapart\[ray\]'"):
        embed(home[0], tmp_path / "v", workers="ray")


def test_the_command_line(home, tmp_path, capsys):
    words = ["embed", home[0] / "run", "--data", home[0] / "photos.parquet"]
    words = [*map(str, words), "--out", str(tmp_path / "v"), "--shard-size", "7", "--json"]
    cli.main(words)
    assert json.loads(capsys.readouterr().out)["shards"] == 4
    (tmp_path / "v" / "part-00003.parquet").unlink()
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--check"])
    assert stop.value.code == 3


# object stores -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    """A server of S3 on loopback that can be stopped and started again."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    yield server
    with contextlib.suppress(Exception):
        server.stop()


@pytest.fixture
def bucket(s3, monkeypatch):
    import s3fs

    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    address = "http://{}:{}".format(*s3.get_host_and_port())
    more = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
    for name, value in (keys | more).items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    name = f"b{time.monotonic_ns()}"
    system.mkdir(name)
    s3fs.S3FileSystem.clear_instance_cache()
    yield f"s3://{name}", system
    s3fs.S3FileSystem.clear_instance_cache()


def test_s3_in_and_out(home, whole, bucket, tmp_path):
    place, system = bucket
    for path in (home[0] / "photos").rglob("*.png"):
        name = path.relative_to(home[0] / "photos")
        system.pipe_file(f"{place}/photos/{name}", path.read_bytes())
    assert ta.manifest(f"{place}/photos", out=tmp_path / "m.parquet").rows == ROWS - 1
    made = embed(home[0], f"{place}/vectors", data=tmp_path / "m.parquet")
    assert (made.vectors, made.errors) == (ROWS - 2, 1)
    assert embed(home[0], f"{place}/vectors", data=tmp_path / "m.parquet").shards == 0
    loaded = shards.Shards(f"{place}/vectors").load()
    for name, vector in zip(loaded.ids, loaded.vectors, strict=True):
        np.testing.assert_allclose(vector, home[1][name], rtol=1e-5, atol=1e-5)
    found = embed(home[0], f"{place}/vectors", data=tmp_path / "m.parquet", check=True)
    assert found.vectors == ROWS - 2


def test_a_store_never_replaces_a_part(bucket, tmp_path):
    for store in (Store(f"{bucket[0]}/v"), Store(tmp_path / "v")):
        assert store.names() == []
        assert store.create("a", lambda f: f.write(b"first"))
        assert not store.create("a", lambda f: f.write(b"second"))
        assert store.read("a") == b"first"
        store.replace("a", lambda f: f.write(b"third"))
        assert store.read("a") == b"third"
        assert store.names() == ["a"]
        store.remove("a")
        store.remove("a")
        assert not store.exists("a")


def test_a_bucket_that_vanishes_makes_failures(home, bucket, tmp_path):
    place, system = bucket
    names = [f"{place}/{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        system.pipe_file(name, png(i))
    save(tmp_path / "m.parquet", id=names, uri=names)
    embed(home[0], tmp_path / "v", data=tmp_path / "m.parquet", worker="0/2")
    system.rm(place, recursive=True)
    with pytest.raises(IncompleteError, match=r"1 shard of 2"):
        embed(home[0], tmp_path / "v", data=tmp_path / "m.parquet")
    assert not list((tmp_path / "v").glob("errors-*"))


def test_a_server_that_is_down_for_a_while(home, bucket, s3, tmp_path, monkeypatch):
    """The shards wait; nothing becomes an error of an item."""
    monkeypatch.setattr(shard_worker, "WAITS", (1.0, 2.0))
    place, system = bucket
    names = [f"{place}/{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        system.pipe_file(name, png(i))
    save(tmp_path / "m.parquet", id=names, uri=names)
    about = {"data": tmp_path / "m.parquet", "shard_size": 4}
    embed(home[0], tmp_path / "v", worker="0/2", **about)
    real, port = s3._server, s3._server.server_port
    real.shutdown()
    real.socket.close()
    from werkzeug.serving import make_server

    def back():
        s3._server = make_server("127.0.0.1", port, real.app, True)
        s3._server.serve_forever()

    timer = threading.Timer(2.0, back)
    timer.daemon = True
    timer.start()
    made = embed(home[0], tmp_path / "v", **about)
    assert (made.vectors, made.errors) == (4, 0)
