"""The explorer of sounds, series and sentences, of other folders, and how it is started."""

from __future__ import annotations

import builtins
import io
import re
import sys
import wave
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest

import tellapart as ta
from tellapart.embeddings import Embeddings
from tellapart.embeddings.collection import Collection
from tellapart.errors import ConfigError, DataError, MissingExtraError, RunError, TellapartError
from tellapart.runtime.console import Console

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from explorer_client import QUIET, Client, served

from tellapart.reports.explorer import State, guard, items, serve, server, state


def shown_of(source, vectors, run, tmp_path):
    loaded = ta.load(run)
    embeddings = Embeddings(vectors, source.ids, source.labels)
    return State(
        Collection(str(run), source, embeddings, loaded.encoder, loaded.run, folder=tmp_path)
    )


def test_sounds_series_and_sentences(run, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(4):
        tone = 0.3 * np.sin(np.arange(4000) * (0.1 + 0.05 * i))
        soundfile.write(folder / f"{i}.wav", tone, 4000)
    np.save(
        tmp_path / "a.npy", np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    )
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    random = np.random.default_rng(0)
    sounds = shown_of(ta.open_source(str(folder)), random.standard_normal((4, 8)), run, tmp_path)
    with wave.open(io.BytesIO(items.sound(sounds, 2))) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (4000, 4000, 1)
        heard = np.frombuffer(file.readframes(4000), "<i2")
    np.testing.assert_array_equal(heard, sounds.source.sequence(2)[:, 0])
    found = items.described(sounds, 2)
    assert (found["end"], found["unit"], len(found["curves"][0])) == (1.0, "s", items.POINTS)
    for raw, status in ((b"no sound", 415), (_wav(61, 4000), 413), (_wav(100_000, 1), 413)):
        with pytest.raises(guard.Refused) as error:
            items.like_upload(sounds, raw)
        assert error.value.status == status
    table = ta.open_source(str(tmp_path / "a.npy"))
    series = shown_of(table, random.standard_normal((len(table), 8)), run, tmp_path)
    assert len(items.described(series, 1)["curves"]) == items.CURVES
    with pytest.raises(guard.Refused, match="cannot be heard"):
        items.sound(series, 0)
    with pytest.raises(TellapartError, match="the uploaded file cannot be read"):
        items.like_upload(series, b"a,b\nc,d\n")
    texts = shown_of(
        ta.open_source(str(tmp_path / "lines.txt")), random.standard_normal((3, 8)), run, tmp_path
    )
    assert items.described(texts, 1)["texts"] == ["two"]
    for raw, status in ((b"\xff\xfe\x00", 415), (b"  ", 422), (b"x" * (items.LETTERS + 1), 413)):
        with pytest.raises(guard.Refused) as error:
            items.like_upload(texts, raw)
        assert error.value.status == status
    assert texts.pca.shape == (3, 2)


def _wav(seconds, rate):
    room = io.BytesIO()
    with wave.open(room, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * seconds * rate))
    return room.getvalue()


def test_a_sentence_is_searched_for(tmp_path):
    words = ["river", "tram", "apple", "cloud", "violin", "brick", "north", "green"]
    lines = [f"the {a} and the {b}" for a in words for b in words if a != b]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    ta.train(
        "simcse", data=str(tmp_path / "lines.txt"), out=tmp_path / "run", steps=2, threads=1,
        width=32, layers=2,
        vocabulary=300, dim=16, batch_size=8, console=QUIET,
    )  # fmt: skip
    shown = State.open(tmp_path / "run", console=QUIET)
    near = items.like_upload(shown, lines[3].encode())["neighbours"]
    assert near[0]["texts"] == [lines[3]]
    (tmp_path / "lines.txt").unlink()
    with pytest.raises(DataError, match=r"does not exist[\s\S]*with --data"):
        State.open(tmp_path / "run", console=QUIET)


def test_folders_that_cannot_be_shown_say_what_makes_what_is_missing(run, tmp_path):
    with pytest.raises(ConfigError, match="is not a run folder, timm/NAME"):
        serve(tmp_path / "nowhere", console=QUIET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="tellapart train METHOD --out"):
        serve(tmp_path / "empty", console=QUIET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="a run of format 99; this version reads format 1"):
        serve(tmp_path / "other", console=QUIET)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text((run / "run.json").read_text())
    with pytest.raises(RunError, match=r"no encoder yet; `tellapart train \.\.\. --resume`"):
        serve(tmp_path / "begun", console=QUIET)


def test_ports_hosts_and_packages(run, monkeypatch):
    taken = server.listening("127.0.0.1", 0)
    with taken, pytest.raises(ConfigError, match="is taken; leave out --port for a free one"):
        serve(run, port=taken.getsockname()[1], console=QUIET)
    with pytest.raises(ConfigError, match=r"0\.\.65535"):
        serve(run, port=70_000, console=QUIET)
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        serve(run, host="203.0.113.1", console=QUIET)
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("starlette"):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[explore\]'"):
        serve(run, console=QUIET)


@pytest.mark.parametrize(("host", "aloud"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_serve_prints_the_address_and_listens_there_alone(run, monkeypatch, host, aloud):
    said, bound = [], []

    class Stopped:
        def run(self, sockets):
            bound.append(sockets[0].getsockname())
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "uvicorn_server", lambda _: Stopped())
    console = Console(quiet=True)
    monkeypatch.setattr(console, "say", said.append)
    serve(run, host=host, console=console)
    whole = "\n".join(said)
    assert re.search(rf"^http://{re.escape(host)}:{bound[0][1]}/\?token=[\w-]{{20,}}$", whole, re.M)
    assert bound[0][0] == host
    assert ("other machines can reach this page" in whole) == aloud


def test_the_browser_gets_the_token_in_a_file_of_this_user(run, monkeypatch):
    seen = {}

    class Stopped:
        def run(self, sockets):
            seen["url"] = opened_with[0]
            path = Path(url2pathname(urlsplit(opened_with[0]).path))
            seen["page"], seen["mode"] = path.read_text(), path.stat().st_mode & 0o777
            seen["path"] = path
            raise KeyboardInterrupt

    class Now:
        def __init__(self, seconds, function, arguments):
            function(*arguments)

        def start(self):
            pass

    opened_with, said = [], []
    monkeypatch.setattr(server.webbrowser, "open", opened_with.append)
    monkeypatch.setattr(server.threading, "Timer", Now)
    monkeypatch.setattr(server, "uvicorn_server", lambda _: Stopped())
    console = Console(quiet=True)
    monkeypatch.setattr(console, "say", said.append)
    serve(run, open_browser=True, console=console)
    token = re.search(r"token=([\w-]+)", "\n".join(said)).group(1)
    assert token not in seen["url"]
    assert f'name="token" value="{token}"' in seen["page"]
    assert seen["mode"] == 0o600
    assert not seen["path"].exists()


def test_what_is_kept_is_made_again_for_other_features(opened, tmp_path):
    first = State(replace(opened.items, folder=tmp_path)).pca
    (tmp_path / "map-pca.npz").write_bytes(b"damaged")
    np.testing.assert_array_equal(State(replace(opened.items, folder=tmp_path)).pca, first)
    few = np.arange(50)
    part = replace(
        opened.items, source=opened.source.subset(few), vectors=opened.embeddings.take(few),
        folder=tmp_path,
    )  # fmt: skip
    assert State(part).pca.shape == (50, 2)
    assert State(replace(part, folder=None)).pca.shape == (50, 2)


def test_vectors_without_a_training_are_shown(tmp_path, capsys):
    random = np.random.default_rng(0)
    vectors = Embeddings(
        random.standard_normal((30, 8)), [f"i{n}" for n in range(30)], [0, 1, 2] * 10
    )
    vectors.save(tmp_path / "v.npz")
    shown = State.open(tmp_path / "v.npz", console=QUIET)
    about = shown.about()
    assert (about["items"], about["trained"], about["searchable"]) == (30, False, False)
    assert about["classes"] == ["0", "1", "2"]
    assert items.like_item(shown, 3)["item"]["id"] == "i3"
    with pytest.raises(guard.Refused, match="choose an item"):
        items.like_upload(shown, b"x")
    with served(shown) as port:
        client = Client(port)
        assert client.ask("/api/scores").value is None
        assert client.ask("/api/training").value == []
        assert client.patiently("/api/findings").value["outliers"]
        assert client.ask("/api/thumbnail/1").status == 404


def test_umap_is_laid_out_or_named(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[map\]"):
        state.umap_map(opened.embeddings.vectors)
    with pytest.raises(DataError, match="4 items or more"):
        state.umap_map(np.eye(3, dtype=np.float32))
