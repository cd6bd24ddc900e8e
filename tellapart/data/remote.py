"""Files of a store that is named by a url: S3, Google Cloud Storage, Azure, HTTP, a hub, memory.

fsspec reads them. A request that fails for a passing reason is repeated; a store that cannot be
reached, or that refuses, is one error that names the store and never a password or a token.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import fsspec

from ..errors import DataError, StoreError, unknown
from ..runtime.extras import optional
from .opening import read_bytes, reason

LARGEST = 1 << 30  # bytes of one file that are read into memory
WAITS = (0.5, 1.5, 4.5)  # seconds before each repetition of a request
CONNECT, READ = 10.0, 60.0  # seconds in which a store must accept, and must go on sending
PASSING = frozenset({408, 425, 429})  # statuses below 500 after which a request is repeated
REFUSED = frozenset({401, 403, 407})
EMPTY = 416  # a range of bytes of a file without bytes
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CREDENTIALS = re.compile(
    r"credential|access ?key ?id|signature ?does|access ?denied|forbidden|unauthorized"
    r"|(expired|invalid|bad) ?token|token ?(expired|refresh)", re.IGNORECASE,
)  # fmt: skip
T = TypeVar("T")


class Store(NamedTuple):
    """How a protocol is read.

    Attributes:
        package: that reads it.
        extra: of tellapart, that installs the package; "": it comes with tellapart.
        login: where the package finds its credentials.
    """

    package: str
    extra: str = ""
    login: str = "the user name and password in the url"


_S3 = Store("s3fs", "s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
_GCS = Store("gcsfs", "gcs", "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth login")
_AZURE = Store("adlfs", "azure", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY")
_HTTP = Store("aiohttp", "http", "NETRC, or a signed url")
_SFTP = Store("paramiko", "sftp")
STORES = {
    "s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "abfs": _AZURE, "abfss": _AZURE, "az": _AZURE,
    "http": _HTTP, "https": _HTTP, "sftp": _SFTP, "ssh": _SFTP, "ftp": Store("fsspec"),
    "hf": Store("huggingface_hub", login="HF_TOKEN, or hf auth login"),
    "memory": Store("fsspec"), "file": Store("fsspec"),
}  # fmt: skip


def is_url(name: str) -> bool:
    """Whether a name is a url, with a protocol of two letters or more.

    >>> is_url("s3://bucket/x.png"), is_url("photos/x.png"), is_url("C:/x.png")
    (True, False, False)
    """
    return bool(_URL.match(name))


def local_path(url: str) -> Path | None:
    """The path of a file:// url; None of another one.

    >>> local_path("file:///data/a%20b.png").as_posix(), local_path("s3://bucket/x.png")
    ('/data/a b.png', None)
    """
    parts = urlsplit(url)
    return (
        Path(unquote(parts.path, errors="surrogateescape"))
        if parts.scheme.lower() == "file"
        else None
    )


def path_of(uri: str) -> Path | None:
    """The path of a uri on the disk; None: it is of a store.

    Args:
        uri: a path, or a url; in file:// urls %XX spells any byte.

    >>> path_of("a%20b.png").as_posix(), path_of("file:///a%20b.png").as_posix()
    ('a%20b.png', '/a b.png')
    """
    return local_path(uri) if is_url(uri) else Path(uri)


def open_bytes(uri: str, most: int = LARGEST) -> bytes:
    """The bytes of one file, of a store or of the disk.

    A request that fails for a passing reason (no answer, a status of 429 or from 500) is repeated
    three times.

    Args:
        uri: a url such as s3://bucket/key, https://host/name or memory://name, or a path.
        most: bytes that are read at most.

    Raises:
        StoreError: the store cannot be reached, or refuses; this concerns all of its files.
        MissingExtraError: the package that reads the protocol is not installed.
        OSError: the file is not there.
        ValueError: it is no regular file, or has more than `most` bytes.
    """
    path = path_of(uri)
    if path is not None:
        return read_bytes(path, most)
    system, inner = file_system(uri)

    def ask() -> bytes:
        try:
            return bytes(system.cat_file(inner, start=0, end=most + 1))
        except Exception as error:  # an empty file has no range
            if status_of(error) == EMPTY or "InvalidRange" in str(error):
                return b""
            raise

    raw = asked(uri, ask)
    if len(raw) > most:
        raise ValueError(f"too large: more than {most / 1e9:.1f} GB")
    return raw


def file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec that reads a url, and the name of the url in it.

    Raises:
        DataError: the protocol is not one of `STORES`.
        MissingExtraError: its package is not installed.
        StoreError: the store refuses, or the url is damaged.
    """
    protocol = url.partition("://")[0].lower()
    if protocol not in STORES:
        raise DataError(str(unknown("protocol", protocol, STORES)))
    store = STORES[protocol]
    optional(store.package, store.extra)
    try:
        system, inner = fsspec.url_to_fs(url, **_settings(protocol))
    except Exception as error:  # each package raises its own kinds
        raise _failed(url, error) from error
    if store is _S3:
        system.retries = 1  # `asked` repeats
    return system, str(inner)


def asked(url: str, ask: Callable[[], T]) -> T:
    """The result of a request to a store, repeated after failures that may pass.

    Args:
        url: that is asked for.
        ask: the request.

    Raises:
        StoreError: the store cannot be reached, or refuses.
        FileNotFoundError: the store has no such file.
    """
    for wait in (*WAITS, None):
        try:
            return ask()
        except (FileNotFoundError, IsADirectoryError):
            raise
        except Exception as error:  # as above
            if wait is None or not may_pass(error):
                raise _failed(url, error) from error
            time.sleep(wait)
    raise AssertionError  # the last turn returns or raises


def may_pass(error: BaseException) -> bool:
    """Whether a failed request is worth repeating."""
    status = status_of(error)
    if status is not None:
        return status in PASSING or status >= 500
    lasting = isinstance(error, PermissionError | ValueError | TypeError | ImportError)
    return not (lasting or _is_about_credentials(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of aiohttp, botocore, huggingface_hub or gcsfs; None: none."""
    answer = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif answer is not None:
        found = getattr(answer, "status_code", found)
    if found is None and error.__cause__ is not None:  # s3fs turns errors of botocore into OSError
        return status_of(error.__cause__)
    return int(str(found)) if str(found).isdecimal() else None


def store_of(url: str) -> str:
    """The store of a url: protocol and host or bucket, without user name, password or query.

    >>> store_of("https://me:secret@host:8080/a?token=x"), store_of("s3://bucket/key")
    ('https://host:8080', 's3://bucket')
    """
    protocol, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{protocol}://{host}"


def shown(url: str) -> str:
    """A url without user name, password and query, for messages.

    >>> shown("https://me:secret@host/a.png?token=x")
    'https://host/a.png'
    """
    path = re.split(r"[?#]", url.partition("://")[2], maxsplit=1)[0].partition("/")[2]
    return f"{store_of(url)}/{path}"


def _settings(protocol: str) -> dict[str, Any]:
    """Arguments of the file system: how long it waits; and no shared state between threads."""
    if STORES[protocol] is _S3:
        limits = {"connect_timeout": CONNECT, "read_timeout": READ, "retries": {"max_attempts": 0}}
        return {"config_kwargs": limits, "anon": _is_anonymous()}
    if STORES[protocol] is _HTTP:
        aiohttp = optional("aiohttp", _HTTP.extra)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ)
        return {"client_kwargs": {"timeout": limit, "trust_env": True}}
    return {}


_LOOKING = threading.Lock()


def _is_anonymous() -> bool:
    """Whether S3 is asked without credentials, because there are none: public buckets allow it."""
    with _LOOKING:  # on a machine of a cloud the first look asks the network
        return _lacks_credentials(tuple(sorted(v for v in os.environ.items() if "AWS" in v[0])))


@functools.lru_cache(maxsize=4)
def _lacks_credentials(_: tuple[tuple[str, str], ...]) -> bool:
    try:
        from botocore.session import Session

        return Session().get_credentials() is None
    except Exception:  # a damaged profile: botocore says so when it is used
        return False


def _is_about_credentials(error: BaseException) -> bool:
    return bool(_CREDENTIALS.search(f"{type(error).__name__} {error}"))


def _failed(url: str, error: Exception) -> StoreError:
    """The error of a store that does not give what it is asked for."""
    store = STORES[url.partition("://")[0].lower()]
    status = status_of(error)
    why = shown_reason(error)
    if isinstance(error, PermissionError) or status in REFUSED or _is_about_credentials(error):
        return StoreError(
            f"{store_of(url)} refuses to give {shown(url)} ({why}); check the credentials: "
            f"{store.login}"
        )
    if may_pass(error):
        return StoreError(
            f"{store_of(url)} did not answer {len(WAITS) + 1} times ({why}); check the network "
            "and the address, and try again"
        )
    return StoreError(f"{shown(url)} cannot be read ({why})")


def shown_reason(error: BaseException) -> str:
    """The answer of a store in one line, without the queries of urls (which may be signed)."""
    words = reason(error).removeprefix("damaged: ").splitlines() or [""]
    return re.sub(r"(://)[^\s/@]*@|\?[^\s'\"]*", r"\1", words[0])[:200]


def headers(url: str) -> dict[str, Any] | None:
    """Size and state of a file behind http, from its headers; None: it is not there.

    Args:
        url: of the file.

    Raises:
        StoreError: the server cannot be reached, or refuses.
    """
    system, _ = file_system(url)

    async def head() -> dict[str, Any]:
        session = await system.set_session()
        async with session.head(url, allow_redirects=True) as answer:
            if answer.status in (404, 410):
                raise FileNotFoundError(url)
            if answer.status in (405, 501):  # the server tells nothing before it sends
                return {}
            answer.raise_for_status()
            names = {name.lower(): value for name, value in answer.headers.items()}
        size = names.get("content-length")
        found: dict[str, Any] = {k: names[k] for k in ("etag", "last-modified") if k in names}
        coded = names.get("content-encoding", "identity") != "identity"
        return found | ({"size": int(size)} if size and not coded else {})

    try:
        found: dict[str, Any] = asked(url, lambda: fsspec.asyn.sync(system.loop, head))
    except FileNotFoundError:
        return None
    return found


def fetch(base: str, inner: str, into: Path, size: Any) -> None:
    """Write one file of a store to the disk.

    Args:
        base: url of the store.
        inner: the file, as its file system names it.
        into: where it is written.
        size: bytes that the store states; None: unknown.

    Raises:
        StoreError: the store cannot be reached, or refuses.
        OSError: the file is not there.
    """
    system, _ = file_system(base)

    def ask() -> None:
        system.get_file(inner, str(into))
        if size is not None and into.stat().st_size != int(size):
            raise OSError(f"{into.stat().st_size:,} of {int(size):,} bytes came")

    asked(base, ask)


def joined(base: str | None, name: str) -> str | None:
    """The url of a name that is a url, or is relative to one; None: it is a path on the disk.

    >>> joined("s3://bucket/a", "b/1.png"), joined(None, "s3://x/1.png"), joined(None, "1.png")
    ('s3://bucket/a/b/1.png', 's3://x/1.png', None)
    """
    if is_url(name):
        return name
    if base is None:
        return None
    quoted = quote(name, safe="/%") if base.lower().startswith("http") else name
    return f"{base.rstrip('/')}/{quoted.removeprefix('./')}"
