"""Shared by the tests of the explorer: a server in a thread, a client, pictures to upload."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import struct
import threading
import time
import zlib
from types import SimpleNamespace

from PIL import Image

from tellapart.reports.explorer import application, server
from tellapart.runtime.console import Console

QUIET = Console(quiet=True)
TOKEN = "the-token"


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
        given = (
            self.headers | {"content-length": str(len(body))} if body is not None else self.headers
        )
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
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = min(height, 9000)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture_of(shown, row):
    room = io.BytesIO()
    Image.fromarray(shown.source.image(row)[:, :, 0]).save(room, "PNG")
    return room.getvalue()
