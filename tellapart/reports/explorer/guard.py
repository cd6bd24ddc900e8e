"""Access to the explorer, as plain ASGI: host, token, cookie, origin and rate.

    Host of this machine -> token or cookie -> same origin -> rate -> the page

A request that fails a step is answered here with a reason; so is every uncaught error.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from ...errors import TellapartError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})
BURST, PER_SECOND = 1000, 300  # requests of a session: at once, and in the long run
FORM, PATIENCE = 4096, 20.0  # bytes of a form with a token; seconds for it to arrive
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
NO_SESSION = (
    "This page is opened by the address that `tellapart explore` printed. Its token works once, in "
    "one browser. If you just followed it, reload; otherwise stop the command (Ctrl-C) and "
    "start it again for a new address."
)


FAILED = "an error on the server; the terminal of `tellapart explore` says more"


class Refused(TellapartError):
    """A request that is answered with an HTTP status and a reason.

    Attributes:
        status: 4xx or 5xx.
        retry: seconds after which it may be asked again, None where that would not help.
    """

    def __init__(self, status: int, reason: str, *, retry: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry = status, retry


class Bucket:
    """`burst` at once, `per_second` on and on."""

    def __init__(self, burst: float, per_second: float) -> None:
        self.burst, self.per_second = burst, per_second
        self.left, self.last = burst, time.monotonic()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.last) * self.per_second)
        self.last = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Guard:
    """Lets the requests of one browser session through to `app`.

    Args:
        app: what is guarded.
        token: opens the session, once.
        host: the address that the server listens on.
        port: its port. Browsers send a cookie to every port of a machine, so the port stands in
            the name and in the value of ours.
        say: told of errors that nothing else caught; the client sees only that there was one.
    """

    def __init__(
        self, app: App, *, token: str, host: str, port: int, say: Callable[[str], None]
    ) -> None:
        self.app, self.token, self.port, self.say = app, token, port, say
        self.name = f"tellapart-{port}"
        self.session: str | None = None
        self.hosts = LOOPBACK | {
            host.lower(),
            *([socket.gethostname().lower()] if host in EVERYWHERE else []),
        }
        self.any_address = host in EVERYWHERE
        self.rate = Bucket(BURST, PER_SECOND)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_encoded(HEADERS)]
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            self._require_host(headers)
            if opened := self._opened(scope, headers, await _token(scope, receive)):
                await _let_in(sending, opened, posted=scope["method"] == "POST")
                return
            self._require_session(scope, headers)
            await self.app(scope, receive, sending)
        except Refused as error:
            await _answer(sending, error.status, str(error), _retry(error))
        except (
            Exception
        ) as error:  # whatever it is, the server lives on and its traceback stays here
            self.say(f"{scope['path']} failed: {type(error).__name__}: {error}")
            if not started:
                await _answer(sending, 500, FAILED)

    def _require_host(self, headers: dict[str, str]) -> None:
        name = _host_name(headers.get("host", ""))
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            raise Refused(
                421,
                f"this server answers to the name of its own machine, not to {name[:80]!r}; use "
                "the printed address",
            )

    def _opened(self, scope: Message, headers: dict[str, str], token: str | None) -> str | None:
        """The cookie that a first visit with the token gets; None: a visit without a token."""
        if token is None:
            return None
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Refused(403, NO_SESSION)
        if self.session is None:
            self.session = f"{self.port}.{secrets.token_urlsafe(32)}"
        elif not self._known(headers):
            raise Refused(403, NO_SESSION)
        return f"{self.name}={self.session}; HttpOnly; SameSite=Strict; Path=/"

    def _require_session(self, scope: Message, headers: dict[str, str]) -> None:
        if not self._known(headers):
            raise Refused(403, NO_SESSION)
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin", "")
            if origin and origin.partition("://")[2].lower() != headers["host"].lower():
                raise Refused(403, f"asked for by another page ({origin[:80]}); only this one may")
        if not self.rate.take():
            raise Refused(429, "too many requests at once; wait a second", retry=1)

    def _known(self, headers: dict[str, str]) -> bool:
        if self.session is None:
            return False
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(
            name == self.name and hmac.compare_digest(value.encode(), self.session.encode())
            for name, _, value in cookies
        )


def _host_name(host: str) -> str:
    """Of a Host header, without the port.

    >>> _host_name("localhost:80"), _host_name("[::1]:80")
    ('localhost', '::1')
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _is_address(name: str) -> bool:
    """Whether a host is an IP address: DNS rebinding needs a name, never an address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _retry(error: Refused) -> dict[str, str]:
    return {} if error.retry is None else {"retry-after": str(error.retry)}


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _token(scope: Message, receive: Receive) -> str | None:
    """The token that a request for the first page brings: in its address or in its form."""
    if scope["path"] != "/":
        return None
    query = scope["query_string"]
    if scope["method"] == "POST":
        query = await _short_body(receive)
    elif scope["method"] != "GET":
        return None
    given = parse_qs(query.decode("latin-1")).get("token")
    return given[0] if given else None


async def _short_body(receive: Receive) -> bytes:
    """The body of a request, at most `FORM` bytes.

    Raises:
        Refused: 413 too large, 408 too slow.
    """
    body: bytes = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > FORM:
                    raise Refused(413, "the form is too long")
                if not message.get("more_body"):
                    return body
    except TimeoutError as error:
        raise Refused(408, f"the form did not arrive within {PATIENCE:g} s") from error


async def _let_in(send: Send, cookie: str, *, posted: bool) -> None:
    """Set the cookie and go to the first page.

    After a form of another origin (the file of --browser) a redirect would still count as
    cross-site and bring no SameSite=Strict cookie, so a page of ours leads on.
    """
    body = b'<!doctype html><meta http-equiv="refresh" content="0;url=/">' if posted else b""
    about = {"content-type": "text/html; charset=utf-8", "cache-control": "no-store",
             "content-length": str(len(body)), "set-cookie": cookie}  # fmt: skip
    about |= {} if posted else {"location": "/"}
    status = 200 if posted else 303
    await send({"type": "http.response.start", "status": status, "headers": _encoded(about)})
    await send({"type": "http.response.body", "body": body})


async def _answer(
    send: Send, status: int, words: str, headers: dict[str, str] | None = None
) -> None:
    body = json.dumps({"error": words}).encode() if words else b""
    about = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
    }
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": _encoded(about | (headers or {})),
        }
    )
    await send({"type": "http.response.body", "body": body})
