"""The page of a run: over real HTTP, and in a real browser."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import http.client
import io
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import wave
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import tellapart as ta
from tellapart.console import Console
from tellapart.embeddings import Embeddings
from tellapart.errors import ConfigError, DataError, MissingExtraError, RunError, TellapartError
from tellapart.evaluation.protocol import NAME as PROTOCOL
from tellapart.run import Run

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tellapart.explorer import State, application, guard, items, serve, server, state

CHROMIUM = Path("/usr/bin/chromium")
QUIET = Console(quiet=True)
TOKEN = "the-token"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the digits, judged in a word."""
    folder = tmp_path_factory.mktemp("explorer") / "run"
    ta.train("instdisc", data="digits", out=folder, epochs=1, threads=1, console=QUIET)
    score = {"value": 0.9, "low": 0.88, "high": 0.92, "note": ""}
    Run.open(folder).write_json(
        "eval.json",
        {"protocol": PROTOCOL, "verdict": "better than pixels", "headline": "trained embedding",
         "baselines": ["centred pixels"], "comparisons": [], "counts": {"train": 1437, "test": 360},
         "scores": {"centred pixels": {"knn@200": score}, "trained embedding": {"knn@200": score}},
         "geometry": {"trained embedding": {"std": 0.8}}},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def opened(run):
    return State.open(run, console=QUIET)


@contextlib.contextmanager
def served(shown):
    """A server in a thread: its port."""
    with server.listening("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        app = application(shown, token=TOKEN, port=port)
        serving = server.uvicorn_server(app)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not serving.started:
            time.sleep(0.01)
        yield port
        serving.should_exit = True
        thread.join(10)


@pytest.fixture
def port(opened):
    with served(opened) as number:
        yield number


class Client:
    """Speaks to the page as a browser with its cookie does."""

    def __init__(self, port):
        self.port, self.headers = port, {}
        answer = self.ask("/?token=" + TOKEN)
        assert answer.status == 303
        self.headers = {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def ask(self, path, *, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="host" in headers)
        given = self.headers | {"content-length": str(len(body))} if body is not None else self.headers
        for name, value in {**given, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        kind = answer.headers.get("content-type", "")
        value = json.loads(raw) if raw and "json" in kind else raw
        return SimpleNamespace(status=answer.status, headers=answer.headers, value=value)

    def search(self, body, path="/api/search"):
        return self.ask(path, method="POST", body=body)

    def patiently(self, path):
        for _ in range(300):
            answer = self.ask(path)
            if answer.status != 202:
                return answer
            assert answer.value["working"] >= 0
            time.sleep(0.05)
        raise TimeoutError(path)


def png(width, height):
    """A PNG of nothing, small as a file and large as a picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = min(height, 9000)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture_of(shown, row):
    room = io.BytesIO()
    Image.fromarray(shown.source.image(row)[:, :, 0]).save(room, "PNG")
    return room.getvalue()


# who may ask ----------------------------------------------------------------------------------------------------------


def test_the_token_works_once_and_the_cookie_afterwards(port):
    stranger = SimpleNamespace(port=port, headers={})
    assert Client.ask(stranger, "/").status == 403
    refused = Client.ask(stranger, "/api/run")
    assert refused.status == 403
    assert "`tellapart explore` printed" in refused.value["error"]
    assert Client.ask(stranger, "/?token=guess").status == 403
    client = Client(port)
    cookie = client.ask("/?token=" + TOKEN)
    assert cookie.status == 303  # a reload of the first address, with the cookie
    assert cookie.headers["location"] == "/"
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.headers["set-cookie"].split("; "))
    assert Client.ask(stranger, "/?token=" + TOKEN).status == 403
    assert client.ask("/").status == 200
    assert Client.ask(SimpleNamespace(port=port, headers={"cookie": f"tellapart-{port}=x"}), "/").status == 403


def test_headers_of_safety_stand_on_every_answer(port):
    client = Client(port)
    for path in ("/", "/app.js", "/api/run", "/nowhere"):
        headers = client.ask(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]:80", ""])
def test_another_host_is_refused(port, host):
    client = Client(port)
    answer = client.ask("/api/run", host=host)
    assert answer.status in (400, 421)
    assert "its own machine" in answer.value["error"]
    assert client.ask("/api/run", host=f"localhost:{port}").status == 200


def test_another_page_cannot_ask_for_work(port):
    client = Client(port)
    for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1}", "null"):
        answer = client.ask("/api/search?row=1", method="POST", body=b"", origin=origin)
        assert answer.status == 403
    own = client.ask("/api/search?row=1", method="POST", body=b"", origin=f"http://127.0.0.1:{port}")
    assert own.status == 200


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc/passwd", "/api/thumbnail/../..", "/api/thumbnail/..%2f..%2frun.json", "/%2e%2e/run.json",
     "/assets/app.js", "/app.js%00", "/api/thumbnail/-1", "/api/thumbnail/1797", "/api/thumbnail/" + "9" * 5000,
     "/api/thumbnail/%C2%B2", "/api/item/1.5", "/api/map/../run", "/api/map/passwd", "/api/colour/x", "/run.json",
     "/api/sound/1", "//etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_there(port, path):
    answer = Client(port).ask(path)
    assert answer.status == 404
    assert b"root:" not in json.dumps(answer.value).encode()


def test_hosts_of_everywhere_are_numbers_and_own_names():
    open_to_all = guard.Guard(None, token="t", host="0.0.0.0", name="c", say=print)
    open_to_all._require_host({"host": "192.168.1.7:80"})
    open_to_all._require_host({"host": socket.gethostname()})
    with pytest.raises(guard.Refused, match="own machine"):
        open_to_all._require_host({"host": "evil.example"})


# what is answered -----------------------------------------------------------------------------------------------------


def test_the_parts_of_the_page(port, opened):
    client = Client(port)
    for path, (_, kind) in server.ASSETS.items():
        answer = client.ask(path)
        assert answer.status == 200
        assert answer.headers["content-type"] == kind
    about = client.ask("/api/run").value
    assert (about["items"], about["kind"], len(about["classes"])) == (1797, "images", 10)
    points = np.frombuffer(client.ask("/api/map/pca").value, "<f4").reshape(-1, 2)
    assert points.shape == (1797, 2)
    assert np.abs(points).max() == pytest.approx(1, abs=1e-5)
    labels = np.frombuffer(client.ask("/api/colour/label").value, "<f4")
    np.testing.assert_array_equal(labels, opened.source.labels)
    assert client.ask("/api/ids").value == opened.source.ids
    assert client.ask("/api/item/3").value == {"row": 3, "id": "train/00003", "label": "3"}
    assert [item["id"] for item in client.ask("/api/items?rows=3,1").value] == ["train/00003", "train/00001"]
    assert client.ask("/api/items?rows=" + ",".join("1" * 201)).status == 422
    assert client.ask("/api/items").status == 404
    assert Image.open(io.BytesIO(client.ask("/api/thumbnail/3").value)).size == (16, 16)
    assert client.ask("/api/scores").value["verdict"] == "better than pixels"
    assert client.ask("/api/training").value[0]["step"] == 1
    assert client.ask("/api/run", method="DELETE").status == 405


def test_colours_and_findings_are_made_in_the_background(port, opened):
    client = Client(port)
    clusters = np.frombuffer(client.patiently("/api/colour/cluster").value, "<f4")
    counts = np.bincount(clusters.astype(int))
    assert len(counts) == 10
    assert (np.diff(counts) <= 0).all()
    loss = np.frombuffer(client.patiently("/api/colour/loss").value, "<f4")
    unit = opened.embeddings.vectors / np.linalg.norm(opened.embeddings.vectors, axis=1, keepdims=True)
    terms = (unit[7] @ unit.T).astype(np.float64) / 0.07
    assert loss[7] == pytest.approx(np.log(np.exp(terms).sum()) - terms[7], abs=1e-3)
    outlier = np.frombuffer(client.patiently("/api/colour/outlier").value, "<f4")
    found = client.patiently("/api/findings").value
    assert found["outliers"][0]["row"] == outlier.argmax()
    assert [level["above"] for level in found["alike"]] == list(state.ALIKE)
    kept = sorted(p.name for p in opened.folder.glob("*-*.npz"))
    assert {"map-pca.npz", "colour-cluster.npz", "colour-loss.npz", "colour-outlier.npz"} <= set(kept)


def test_look_alikes_of_an_item_and_of_an_upload(port, opened):
    client = Client(port)
    near = client.search(b"", "/api/search?row=5").value
    assert near["item"]["id"] == "train/00005"
    assert 5 not in [n["row"] for n in near["neighbours"]]
    given = client.search(picture_of(opened, 5)).value["neighbours"]
    assert given[0]["row"] == 5
    assert given[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert [n["row"] for n in given[1:20]] == [n["row"] for n in near["neighbours"][:19]]
    assert client.search(b"", "/api/search?row=99999").status == 404


# what is too much -----------------------------------------------------------------------------------------------------


def test_uploads_that_are_none_are_refused_in_words_and_the_server_lives_on(port, opened):
    client = Client(port)
    cut = picture_of(opened, 5)
    cases = [
        (png(10_000, 5_000), 413, "50 megapixels, 40 at most"), (png(60_000, 60_000), 413, "megapixels"),
        (b"not a picture", 415, "not an image"), (b"", 422, "nothing arrived"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "not an image"),
        (cut[: len(cut) // 2], 422, "what you dropped cannot be read as an image"), (cut[:20], 415, "not an image"),
        (bytes(server.BODY + 1), 413, "32 MB at most"),
    ]  # fmt: skip
    for body, status, words in cases:
        answer = client.search(body)
        assert (answer.status, words in answer.value["error"]) == (status, True), answer.value
        assert not re.search(r"Traceback|/tmp|\.py", answer.value["error"])
    far = client.ask("/api/search", method="POST", content_length=str(10**12))
    assert far.status == 413
    assert client.search(picture_of(opened, 5)).status == 200


def test_a_flood_is_survived(port):
    client = Client(port)

    async def one(path, method):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {client.headers['cookie']}\r\n"
            writer.write((head + "content-length: 0\r\nconnection: close\r\n\r\n").encode())
            return int((await reader.read()).split()[1])

    async def flood():
        calls = [one("/api/search?row=1", "POST") if i % 2 else one("/api/run", "GET") for i in range(500)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(flood())))
    thread.start()
    thread.join(60)
    statuses = {s for s in found if isinstance(s, int)}
    assert 200 in statuses
    assert statuses <= {200, 429, 503}
    assert found.count(503) + found.count(429) > 100  # a few at a time, the others are sent away
    time.sleep(0.5)
    assert client.search(b"", "/api/search?row=1").status == 200


def test_slow_clients_are_let_go(opened, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    with served(opened) as port:
        client = Client(port)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            silent.sendall(b"GET / HT")
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            head = f"POST /api/search HTTP/1.1\r\nhost: localhost\r\ncookie: {client.headers['cookie']}\r\n"
            slow.sendall((head + "content-length: 1000\r\n\r\n12").encode())
            assert slow.recv(1000).split()[1] == b"408"


def test_an_error_nobody_expected_is_500_in_plain_words(opened, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(items, "described", broken)
    with served(opened) as port:
        answer = Client(port).ask("/api/item/1")
        assert answer.status == 500
        assert "secret" not in answer.value["error"]
        assert "the terminal" in answer.value["error"]


# other kinds, other folders -------------------------------------------------------------------------------------------


def shown_of(source, vectors, run, tmp_path):
    loaded = ta.load(run)
    return State(loaded, source, Embeddings(vectors, source.ids, source.labels), tmp_path)


def test_sounds_series_and_sentences(run, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(4):
        tone = 0.3 * np.sin(np.arange(4000) * (0.1 + 0.05 * i))
        soundfile.write(folder / f"{i}.wav", tone, 4000)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32))
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
    series = shown_of(ta.open_source(str(tmp_path / "a.npy")), random.standard_normal((3, 8)), run, tmp_path)
    assert len(items.described(series, 1)["curves"]) == items.CURVES
    with pytest.raises(guard.Refused, match="cannot be heard"):
        items.sound(series, 0)
    with pytest.raises(TellapartError, match="what you dropped cannot be read"):
        items.like_upload(series, b"a,b\nc,d\n")
    texts = shown_of(ta.open_source(str(tmp_path / "lines.txt")), random.standard_normal((3, 8)), run, tmp_path)
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
        "simcse", data=str(tmp_path / "lines.txt"), out=tmp_path / "run", steps=2, threads=1, width=32, layers=2,
        vocabulary=300, dim=16, batch_size=8, console=QUIET,
    )  # fmt: skip
    shown = State.open(tmp_path / "run", console=QUIET)
    near = items.like_upload(shown, lines[3].encode())["neighbours"]
    assert near[0]["texts"] == [lines[3]]
    (tmp_path / "lines.txt").unlink()
    with pytest.raises(DataError, match=r"does not exist[\s\S]*tellapart explore .*run --data WHERE"):
        State.open(tmp_path / "run", console=QUIET)


def test_folders_that_cannot_be_shown_say_what_makes_what_is_missing(run, tmp_path):
    with pytest.raises(RunError, match="tellapart train METHOD --out"):
        serve(tmp_path / "nowhere", console=QUIET)
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


def test_what_is_kept_is_made_again_for_other_features(opened, tmp_path):
    made = State(opened.loaded, opened.source, opened.embeddings, tmp_path)
    first = made.pca
    (tmp_path / "map-pca.npz").write_bytes(b"damaged")
    np.testing.assert_array_equal(State(opened.loaded, opened.source, opened.embeddings, tmp_path).pca, first)
    part = opened.source.subset(np.arange(50))
    shown = State(opened.loaded, part, opened.embeddings.take(np.arange(50)), tmp_path)
    assert shown.pca.shape == (50, 2)
    assert State(opened.loaded, part, shown.embeddings, None).pca.shape == (50, 2)


def test_umap_is_laid_out_or_named(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[map\]"):
        state.umap_map(state.unit(opened.embeddings))
    with pytest.raises(DataError, match="4 items or more"):
        state.umap_map(np.eye(3, dtype=np.float32))


# in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    flags = ["--no-sandbox", "--enable-unsafe-swiftshader"]
    with play.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield found
        found.close()


@pytest.fixture
def page(browser, port):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    made = context.new_page()
    made.troubles = []
    made.on("pageerror", lambda error: made.troubles.append(str(error)))
    made.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
    made.wait_for_selector("html[data-ready]")
    yield made
    context.close()


def place_of(page, row):
    x, y = page.evaluate("(row) => tellapart.screenOf(row)", row)
    box = page.locator("#field").bounding_box()
    return box["x"] + x, box["y"] + y


def artefacts(tmp_path):
    folder = Path(os.environ.get("TELLAPART_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_map_in_a_browser(page, opened, tmp_path):
    assert page.url.endswith("/")
    assert page.locator("#legend button").all_inner_texts() == [str(c) for c in range(10)]
    far = int(np.abs(opened.pca).sum(1).argmax())  # a point by itself
    before = place_of(page, far)
    page.mouse.move(*before)
    page.wait_for_selector("#tip img")
    assert page.evaluate("tellapart.hovered") == far
    for _ in range(3):
        page.mouse.wheel(0, -120)
    page.wait_for_timeout(600)
    assert page.evaluate("tellapart.view.zoom") > 1.5
    assert place_of(page, far) == pytest.approx(before, abs=2)  # the wheel zooms around the pointer
    page.mouse.click(*place_of(page, far))
    page.wait_for_selector("#item .tile")
    assert opened.source.ids[far] in page.locator("#item").inner_text()
    assert page.locator("#item .tile").count() == items.NEIGHBOURS
    page.screenshot(path=artefacts(tmp_path) / "explorer-map.png")
    page.locator("#item .tile").first.click()
    page.wait_for_timeout(400)
    assert opened.source.ids[far] not in page.locator("#item h2 + div b").first.inner_text()
    assert not page.troubles


def test_keys_move_zoom_and_take(page):
    page.locator("#field").focus()
    before = page.evaluate("tellapart.view")
    for key in ("+", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_timeout(600)
    after = page.evaluate("tellapart.view")
    assert after["zoom"] > before["zoom"]
    assert after["x"] > before["x"]
    assert after["y"] > before["y"]
    page.keyboard.press("Enter")
    page.wait_for_selector("#item .tile")
    page.keyboard.press("v")
    page.wait_for_selector("#export-text")
    assert 0 < len(page.evaluate("tellapart.selected")) < 1797
    page.keyboard.press("Escape")
    assert page.evaluate("tellapart.selected") == []
    page.locator("#tab-map").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#scores table")
    assert page.locator("#tab-scores").get_attribute("aria-selected") == "true"


def test_a_lasso_selects_and_exports(page, opened, tmp_path):
    box = page.locator("#field").bounding_box()
    corners = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)]
    spots = [(box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in corners]
    page.keyboard.down("Shift")
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector("#export-text")
    rows = page.evaluate("tellapart.selected")
    points = page.evaluate("(rows) => rows.map(tellapart.screenOf)", list(range(1797)))
    wide, high = box["width"], box["height"]
    inside = [i for i, (x, y) in enumerate(points) if 0.3 < x / wide < 0.7 and 0.3 < y / high < 0.7]
    assert rows == inside
    assert f"{len(rows):,} selected" in page.locator("#selection").inner_text()
    for button, name in (("#export-text", "list.txt"), ("#export-json", "list.json")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / name)
    ids = [opened.source.ids[r] for r in rows]
    assert (tmp_path / "list.txt").read_text().split() == ids
    assert json.loads((tmp_path / "list.json").read_text())["ids"] == ids


def test_a_dropped_file_is_searched_for_and_a_bad_one_explained(page, opened, tmp_path):
    (tmp_path / "query.png").write_bytes(picture_of(opened, 9))
    page.set_input_files("#file", tmp_path / "query.png")
    page.wait_for_selector("#item .tile")
    assert page.locator("#item .tile").first.get_attribute("data-row") == "9"
    drop = """(bytes) => { const held = new DataTransfer();
      held.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true })); }"""
    page.evaluate(drop, list(picture_of(opened, 20)))
    page.wait_for_selector('#item .tile[data-row="20"]')
    page.evaluate(drop, list(b"not a picture"))
    page.wait_for_selector("#trouble:not([hidden])")
    assert "not an image" in page.locator("#trouble").inner_text()


def test_tabs_colours_and_a_phone_in_the_dark(page, tmp_path):
    folder = artefacts(tmp_path)
    page.select_option("#colour", "outlier")
    page.wait_for_selector("#legend .ramp")
    page.click("#tab-training")
    page.wait_for_selector("#training .level", state="attached")
    assert "chance" in page.locator("#training svg").first.inner_html()
    page.click("#tab-findings")
    page.wait_for_selector("#findings .tile")
    page.screenshot(path=folder / "explorer-findings.png")
    page.locator("#findings .tile").first.click()
    page.wait_for_selector("#item .tile")
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(400)
    field, side = page.locator("#field").bounding_box(), page.locator("#side").bounding_box()
    assert side["y"] >= field["y"] + field["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=folder / "explorer-phone.png")
    assert not page.troubles


@pytest.mark.parametrize("way", ["webgl", "canvas"])
def test_both_ways_to_draw_show_the_same_points(browser, port, opened, way):
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}#{way}")
    page.wait_for_selector("html[data-ready]")
    if page.evaluate("tellapart.painter") != way:
        pytest.skip("this browser has no WebGL")
    box = page.locator("#field").bounding_box()
    drawn = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")).astype(int)
    for row in np.abs(opened.pca).sum(1).argsort()[-5:].tolist():  # those by themselves
        x, y = page.evaluate("(row) => tellapart.screenOf(row)", row)
        near = drawn[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert np.abs(near - drawn[5, 5]).max() > 60
    page.close()
