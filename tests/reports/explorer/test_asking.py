"""The explorer over real HTTP: who may ask, what is answered, and what is too much."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from explorer_client import TOKEN, Client, picture_of, png, served

from tellapart.reports.explorer import guard, items, server, state

# access ------------------------------------------------------------


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
    assert (
        Client.ask(
            SimpleNamespace(port=port, headers={"cookie": f"tellapart-{port}=x"}), "/"
        ).status
        == 403
    )


def test_headers_of_safety_stand_on_every_answer(port):
    client = Client(port)
    for path in ("/", "/app.js", "/api/run", "/nowhere"):
        headers = client.ask(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]:80", ""]
)
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
    own = client.ask(
        "/api/search?row=1", method="POST", body=b"", origin=f"http://127.0.0.1:{port}"
    )
    assert own.status == 200


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc/passwd", "/api/thumbnail/../..", "/api/thumbnail/..%2f..%2frun.json",
     "/%2e%2e/run.json", "/assets/app.js", "/app.js%00", "/api/thumbnail/-1",
     "/api/thumbnail/1797", "/api/thumbnail/" + "9" * 5000, "/api/thumbnail/%C2%B2",
     "/api/item/1.5", "/api/map/../run", "/api/map/passwd", "/api/colour/x", "/run.json",
     "/api/sound/1", "//etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_there(port, path):
    answer = Client(port).ask(path)
    assert answer.status == 404
    assert b"root:" not in json.dumps(answer.value).encode()


def test_hosts_of_everywhere_are_numbers_and_own_names():
    open_to_all = guard.Guard(None, token="t", host="0.0.0.0", port=80, say=print)
    open_to_all._require_host({"host": "192.168.1.7:80"})
    open_to_all._require_host({"host": socket.gethostname()})
    with pytest.raises(guard.Refused, match="own machine"):
        open_to_all._require_host({"host": "evil.example"})


# answers ------------------------------------------------------------


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
    assert [item["id"] for item in client.ask("/api/items?rows=3,1").value] == [
        "train/00003",
        "train/00001",
    ]
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
    unit = opened.embeddings.vectors / np.linalg.norm(
        opened.embeddings.vectors, axis=1, keepdims=True
    )
    terms = (unit[7] @ unit.T).astype(np.float64) / 0.07
    assert loss[7] == pytest.approx(np.log(np.exp(terms).sum()) - terms[7], abs=1e-3)
    outlier = np.frombuffer(client.patiently("/api/colour/outlier").value, "<f4")
    found = client.patiently("/api/findings").value
    assert found["outliers"][0]["row"] == outlier.argmax()
    assert [level["above"] for level in found["alike"]] == list(state.ALIKE)
    kept = sorted(p.name for p in opened.folder.glob("*-*.npz"))
    assert {"map-pca.npz", "colour-cluster.npz", "colour-loss.npz", "colour-outlier.npz"} <= set(
        kept
    )


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


# limits ------------------------------------------------------------


def test_uploads_that_are_none_are_refused_in_words_and_the_server_lives_on(port, opened):
    client = Client(port)
    cut = picture_of(opened, 5)
    cases = [
        (png(10_000, 5_000), 413, "50 megapixels, 40 at most"),
        (png(60_000, 60_000), 413, "megapixels"),
        (b"not a picture", 415, "not an image"), (b"", 422, "the upload is empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "not an image"),
        (cut[: len(cut) // 2], 422, "the uploaded file cannot be read as an image"),
        (cut[:20], 415, "not an image"),
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
            cookie = f"cookie: {client.headers['cookie']}\r\n"
            head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{cookie}"
            writer.write((head + "content-length: 0\r\nconnection: close\r\n\r\n").encode())
            return int((await reader.read()).split()[1])

    async def flood():
        calls = [
            one("/api/search?row=1", "POST") if i % 2 else one("/api/run", "GET")
            for i in range(500)
        ]
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


def test_the_cookie_names_its_port_twice_and_no_other_is_taken(port):
    cookie = Client(port).headers["cookie"]
    name, _, value = cookie.partition("=")
    assert name == f"tellapart-{port}"
    assert value.startswith(f"{port}.")
    rest = value.partition(".")[2]
    for other in (f"{name}={port + 1}.{rest}", f"{name}={rest}", f"tellapart-{port + 1}={value}"):
        stranger = SimpleNamespace(port=port, headers={"cookie": other})
        assert Client.ask(stranger, "/api/run").status == 403


def test_the_form_of_a_file_opens_the_session_as_the_address_does(opened):
    with served(opened) as port:
        stranger = SimpleNamespace(port=port, headers={})
        wrong = Client.ask(stranger, "/", method="POST", body=b"token=guess", origin="null")
        assert wrong.status == 403
        assert Client.ask(stranger, "/", method="POST", body=b"x" * 5000).status == 413
        form = f"token={TOKEN}".encode()
        first = Client.ask(stranger, "/", method="POST", body=form, origin="null")
        assert first.status == 200
        assert b'url=/"' in first.value  # a page of ours leads on, so the cookie is sent
        stranger.headers = {"cookie": first.headers["set-cookie"].partition(";")[0]}
        assert Client.ask(stranger, "/api/run").status == 200
        late = SimpleNamespace(port=port, headers={})
        assert Client.ask(late, "/", method="POST", body=form).status == 403  # it works once


@pytest.mark.parametrize(
    "rest",
    [b"GET /api/run HTTP/1.1\r\nhost: loc", b"G", b"\r\n",
     b"POST /api/item/1 HTTP/1.1\r\nhost: localhost\r\n%s\r\ncontent-length: 9\r\n\r\n12"],
)  # fmt: skip
@pytest.mark.parametrize("first", ["one", "pipelined"])
def test_half_of_a_further_request_is_not_waited_for(opened, monkeypatch, rest, first):
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    with served(opened) as port:
        cookie = f"cookie: {Client(port).headers['cookie']}".encode()
        whole = b"GET /api/item/1 HTTP/1.1\r\nhost: localhost\r\n" + cookie + b"\r\n\r\n"
        half = rest.replace(b"%s", cookie)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as kept:
            kept.sendall(whole + half if first == "pipelined" else whole)
            assert kept.recv(10_000).startswith(b"HTTP/1.1 200")
            if first == "one":
                kept.sendall(half)
            began = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                while kept.recv(10_000):
                    pass
            assert time.monotonic() - began < 4  # uvicorn's own limit is 5 s


def test_kept_connections_serve_several_requests_within_the_limit(opened, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 2.0)
    with served(opened) as port:
        cookie = f"cookie: {Client(port).headers['cookie']}"
        head = f"GET /api/item/1 HTTP/1.1\r\nhost: localhost\r\n{cookie}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as kept:
            for _ in range(3):
                kept.sendall(head[:20])
                time.sleep(1.0)
                kept.sendall(head[20:])
                answer = b""
                while b'"label"' not in answer:
                    part = kept.recv(10_000)
                    assert part, answer
                    answer += part
                assert answer.startswith(b"HTTP/1.1 200")


def test_an_answer_that_takes_too_long_ends(opened, monkeypatch):
    monkeypatch.setattr(server, "LONGEST", 0.3)
    monkeypatch.setattr(items, "described", lambda *_: time.sleep(1.5))
    with served(opened) as port:
        cookie = f"cookie: {Client(port).headers['cookie']}"
        head = f"GET /api/item/1 HTTP/1.1\r\nhost: localhost\r\n{cookie}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as kept:
            kept.sendall(head)
            with contextlib.suppress(ConnectionResetError):
                assert kept.recv(100) == b""


def test_slow_clients_are_let_go(opened, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    with served(opened) as port:
        client = Client(port)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            silent.sendall(b"GET / HT")
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            cookie = f"cookie: {client.headers['cookie']}\r\n"
            head = f"POST /api/search HTTP/1.1\r\nhost: localhost\r\n{cookie}"
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
