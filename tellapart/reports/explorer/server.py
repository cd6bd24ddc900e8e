"""The page's server: what it answers, and how it listens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import math
import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, MissingExtraError, TellapartError, require
from ...runtime.console import Console
from ...runtime.text import safe
from .. import html
from . import items
from .guard import LOOPBACK, Guard, Refused
from .state import State

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BODY = 32 << 20  # bytes of an upload
DRAINED = (
    256 << 20
)  # bytes of a larger one that are read and thrown away, so that its sender hears why
PATIENCE = 20.0  # seconds for an upload, or for the head of any request, to arrive
LONGEST = 300.0  # seconds from the head of a request to the end of its answer
SEARCHES, WAITING = 1, 8  # at work at once, and in the queue behind them
CONNECTIONS = 1000  # open at once; above it all are answered 503
KEPT = 4096  # thumbnails in memory
AT_ONCE = 200  # items of one answer
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "map", "tabs", "parts")
    },
}


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    data: str | None = None,
    open_browser: bool = False,
    console: Console | None = None,
    **options: Any,
) -> None:
    """Show items on a local page until Ctrl-C.

    Args:
        run: a run folder, another encoder, or vectors, as `open_collection` takes them.
        host: the address to listen on; by default only this machine can reach it.
        port: 0 = a free one.
        data: the items, by default those of the run.
        open_browser: also open the page.
        console: where the address is printed.
        options: those of `open_collection`.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        ConfigError: the port or the host cannot be used.
        RunError, DataError: as `State.open`.
    """
    _require_packages()
    console = console or Console()
    with listening(host, port) as place:
        state = State.open(run, data=data, console=console, **options)
        number = place.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = application(state, token=token, host=host, port=number, console=console)
        url = f"http://{f'[{host}]' if ':' in host else host}:{number}/?token={token}"
        if host not in LOOPBACK:
            console.say(
                f"listening on {host}: other machines can reach this page, unencrypted, and the "
                "first who opens the address below sees these items. Leave out --host to keep it "
                "on this machine"
            )
        console.say(f"{url}\nopen it in one browser (its token works once); Ctrl-C ends")
        with contextlib.ExitStack() as stack:
            if open_browser:
                page = stack.enter_context(opening_page(url.partition("?")[0], token))
                threading.Timer(1.0, webbrowser.open, (page.as_uri(),)).start()
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))
            uvicorn_server(app).run(sockets=[place])


@contextlib.contextmanager
def opening_page(address: str, token: str) -> Iterator[Path]:
    """A file that only this user can read, whose form sends the token to the server.

    A browser is started with the name of this file, so the token does not stand in the list of
    processes, which every user of a machine can read.

    Args:
        address: of the server, without the token.
        token: what opens the session.
    """
    number, name = tempfile.mkstemp(prefix="tellapart-", suffix=".html")
    with open(number, "w", encoding="utf-8") as file:
        page = html.environment().get_template("open.html")
        file.write(page.render(address=address, token=token))
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigError: it cannot be had.
    """
    require(0 <= port <= 65535, f"--port must lie in 0..65535 (0 = a free one), got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        place = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"--host {host} is not an address: {error.strerror}; leave it out for this machine"
        ) from error
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
        place.listen()
    except OSError as error:
        place.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is taken; leave out --port for a free one, or give another"
            ) from error
        if error.errno == errno.EACCES:
            raise ConfigError(
                f"port {port} is for the administrator; leave out --port, or give one >= 1024"
            ) from error
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror}; leave out --host for this machine"
        ) from error
    return place


def uvicorn_server(app: Any) -> uvicorn.Server:
    """A server whose connections are bounded in number and in the time of each request."""
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Timed(H11Protocol):
        """Closes a connection whose next request, or whose answer, takes too long."""

        limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.close_after(PATIENCE)

        def connection_lost(self, exc: Exception | None) -> None:
            self.close_after(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if self.limit is None:  # the first bytes of a further request on a kept connection
                self.close_after(PATIENCE)
            super().data_received(data)
            if self.cycle is not before:  # its head is complete
                self.close_after(LONGEST)

        def on_response_complete(self) -> None:
            before = self.cycle
            self.close_after(None)
            super().on_response_complete()
            if self.cycle is not before:  # a pipelined request has begun
                self.close_after(LONGEST)
            elif self.conn.trailing_data[0] or self.conn.their_state is not h11.IDLE:
                self.close_after(PATIENCE)  # half a request is left in the buffer

        def close_after(self, seconds: float | None) -> None:
            if self.limit is not None:
                self.limit.cancel()
            self.limit = (
                None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
            )

    return uvicorn.Server(
        uvicorn.Config(
            app, http=Timed, ws="none", lifespan="off", log_level="error", access_log=False,
            server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5, timeout_graceful_shutdown=1,
        )
    )  # fmt: skip


def application(
    state: State,
    *,
    token: str,
    host: str = "127.0.0.1",
    port: int = 0,
    console: Console | None = None,
) -> Starlette:
    """The page and what it asks for, behind the guard: an ASGI application.

    Args: token: opens the one session. host, port: where it listens.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    turns = Turns(SEARCHES, WAITING)
    picture = functools.lru_cache(KEPT)(lambda row: items.thumbnail(state, row))
    forever = {
        "cache-control": "private, max-age=86400"
    }  # the page asks with the fingerprint of the data
    colours = {"cluster", "outlier", "loss"}

    def asset(request: Request) -> Response:
        name, kind = ASSETS[request.url.path]
        body = resources.files(__package__).joinpath("assets", name).read_bytes()
        return Response(body, media_type=kind, headers={"cache-control": "no-cache"})

    def numbers(values: np.ndarray[Any, Any]) -> Response:
        return Response(
            np.ascontiguousarray(values, "<f4").tobytes(), media_type="application/octet-stream"
        )

    def later(name: str, send: Callable[[Any], Response]) -> Response:
        value = state.later.get(name)
        if value is None:
            return JSONResponse({"working": round(state.later.seconds(name), 1)}, 202)
        return send(value)

    def layout(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "pca":
            return numbers(state.pca)
        if name != "umap":
            raise Refused(404, "maps: pca, umap")
        return later("map/umap", numbers)

    def colour(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "label":
            return numbers(state.labels)
        if name not in colours:
            raise Refused(404, "colours: label, cluster, outlier, loss")
        return later(f"colour/{name}", numbers)

    def row_of(request: Request) -> int:
        return checked_row(request.path_params["row"], len(state.source))

    def several(request: Request) -> Response:
        rows = request.query_params.get("rows", "").split(",")
        if len(rows) > AT_ONCE:
            raise Refused(422, f"{len(rows):,} items, {AT_ONCE} at most at once")
        return JSONResponse(
            [items.described(state, checked_row(row, len(state.source))) for row in rows]
        )

    async def search(request: Request) -> Response:
        if "row" in request.query_params:
            row = checked_row(request.query_params["row"], len(state.source))
            async with turns.queue(), turns.free:
                return JSONResponse(await run_in_threadpool(items.like_item, state, row))
        async with turns.queue():
            raw = await body_of(request)
            async with turns.free:
                return JSONResponse(await run_in_threadpool(items.like_upload, state, raw))

    def refused(_: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, Refused) else 422
        retry = error.retry if isinstance(error, Refused) else None
        return JSONResponse(
            {"error": str(error)}, status, headers={"retry-after": str(retry)} if retry else None
        )

    def missing(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return JSONResponse(
            {"error": "not found" if status == 404 else "this method is not allowed here"}, status
        )

    get: dict[str, Callable[[Request], Response]] = {
        **dict.fromkeys(ASSETS, asset),
        "/api/run": lambda _: JSONResponse(state.about()),
        "/api/ids": lambda _: JSONResponse([safe(i) for i in state.source.ids]),
        "/api/map/{name}": layout,
        "/api/colour/{name}": colour,
        "/api/items": several,
        "/api/item/{row}": lambda r: JSONResponse(items.described(state, row_of(r))),
        "/api/thumbnail/{row}": lambda r: Response(
            picture(row_of(r)), media_type="image/png", headers=forever
        ),
        "/api/sound/{row}": lambda r: Response(
            items.sound(state, row_of(r)), media_type="audio/wav", headers=forever
        ),
        "/api/scores": lambda _: JSONResponse(plain(state.run.evaluation() if state.run else None)),
        "/api/training": lambda _: JSONResponse(plain(state.run.metrics() if state.run else [])),
        "/api/findings": lambda _: later("findings", JSONResponse),
    }
    routes = [Route(path, answer) for path, answer in get.items()]
    routes.append(Route("/api/search", search, methods=["POST"]))
    guard = Middleware(
        Guard,
        token=token,
        host=host,
        port=port,
        say=(console or Console(quiet=True)).say,
    )
    handlers: Any = {TellapartError: refused, HTTPException: missing}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)


class Turns:
    """A few at work at once, a few waiting, and the others sent away.

    Attributes: free: held while at work.
    """

    def __init__(self, at_work: int, waiting: int) -> None:
        self.free, self.most, self.here = asyncio.Semaphore(at_work), at_work + waiting, 0

    @contextlib.asynccontextmanager
    async def queue(self) -> AsyncIterator[None]:
        """Stand in the queue, and bring what is needed (a slow upload holds up nobody).

        Raises:
            Refused: 503, the queue is full.
        """
        if self.here >= self.most:
            raise Refused(503, f"{self.here} searches are under way; wait a second", retry=1)
        self.here += 1
        try:
            yield
        finally:
            self.here -= 1


async def body_of(request: Request) -> bytes:
    """The body of a request.

    Raises:
        Refused: 413 too large, 408 too slow.
    """
    length = request.headers.get("content-length", "0")
    too_large = Refused(413, f"an upload holds {BODY >> 20} MB at most")
    if length.isdigit() and int(length) > DRAINED:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > DRAINED:
                    raise too_large
                if size <= BODY:
                    parts.append(part)
    except TimeoutError as error:
        raise Refused(408, f"the upload did not arrive within {PATIENCE:g} s") from error
    if size > BODY:
        raise too_large
    return b"".join(parts)


def checked_row(given: str, count: int) -> int:
    """The row that a path names.

    Raises:
        Refused: 404, there is no such item.
    """
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) < count):
        raise Refused(404, f"rows are whole numbers in 0..{count - 1}")
    return int(given)


def plain(value: Any) -> Any:
    """The same with None for numbers that JSON does not know.

    >>> plain({"loss": [1.0, float("nan")]})
    {'loss': [1.0, None]}
    """
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _require_packages() -> None:
    for package in ("starlette", "uvicorn"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "explore") from error
