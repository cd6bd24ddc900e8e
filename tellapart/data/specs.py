"""Options that belong to a `--data` value: `photos.csv#image=file,label=kind`; free of numpy.

`--columns image=file,label=kind` and `--fps 2` are written behind the value itself, after a `#`.
The name of the data that run.json stores is then enough to read them again in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError, unknown

ROLES = {
    "path": "files; their endings tell the kind",
    "image": "image files, or their bytes",
    "audio": "sound files, or their bytes",
    "text": "sentences",
    "text2": "the second sentence of a pair",
    "text3": "a sentence that does not match the pair",
    "label": "labels",
    "split": "splits",
    "id": "names of the items",
    "series": "series: a list of numbers in each row",
}
FPS = "fps"
MOST_NAMES = 100_000  # files that one name with braces may stand for
_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<names>[^{},]+(?:,[^{},]*)+))\}")
_OPTIONS = re.compile(r"(?:[a-z0-9]+=[^=#]+)(?:,[a-z0-9]+=[^=#]+)*")


def columns_of(text: str | Mapping[str, str] | None) -> dict[str, str]:
    """The roles of columns, from `--columns`.

    Args:
        text: "role=name,role=name", or a mapping of the same.

    Raises:
        ConfigError: an unknown role, or no name.

    >>> columns_of("image=file, label=kind")
    {'image': 'file', 'label': 'kind'}
    """
    if text is None:
        return {}
    if isinstance(text, Mapping):
        pairs = [(str(role), str(name)) for role, name in text.items()]
    else:
        pairs = [part.partition("=")[::2] for part in text.split(",") if part.strip()]
    found: dict[str, str] = {}
    for role, name in ((r.strip(), n.strip()) for r, n in pairs):
        if not name:
            raise ConfigError(
                f"--columns needs role=name,role=name, such as image=file,label=kind; got {text!r}"
            )
        if role not in ROLES:
            raise unknown("column role", role, ROLES)
        if role in found:
            raise ConfigError(f"--columns names {role} twice")
        if any(mark in name for mark in "=#,"):
            raise ConfigError(f"--columns: a column name has no '=', '#' or ',': {name!r}")
        found[role] = name
    return found


def with_options(spec: str, options: Mapping[str, object]) -> str:
    """A `--data` value with its options behind it; options that are None are left out."""
    place, own = split_options(spec)
    merged = own | {name: str(value) for name, value in options.items() if value is not None}
    if not merged:
        return spec
    return f"{place}#" + ",".join(f"{name}={value}" for name, value in merged.items())


def split_options(spec: str) -> tuple[str, dict[str, str]]:
    """A `--data` value without its options, and the options.

    A file that exists under the whole name is that file.

    >>> split_options("photos.csv#image=file,label=kind")
    ('photos.csv', {'image': 'file', 'label': 'kind'})
    >>> split_options("photos#2/")
    ('photos#2/', {})
    """
    place, mark, text = spec.rpartition("#")
    if not mark or not place or not _OPTIONS.fullmatch(text) or _exists(spec):
        return spec, {}
    options = dict(part.partition("=")[::2] for part in text.split(","))
    for name in options:
        if name not in ROLES and name != FPS:
            raise unknown("option of the data", name, [*ROLES, FPS])
    return place, options


def expand_braces(name: str) -> list[str]:
    """The names that braces stand for: a range of numbers, or a list.

    Args:
        name: a path or a url.

    Raises:
        ConfigError: they stand for more than 100,000 names.

    >>> expand_braces("shard-{008..010}.tar"), expand_braces("{a,b}.zip"), expand_braces("x.tar")
    (['shard-008.tar', 'shard-009.tar', 'shard-010.tar'], ['a.zip', 'b.zip'], ['x.tar'])
    """
    found = _BRACES.search(name)
    if found is None:
        return [name]
    if found["first"] is not None:
        first, last = int(found["first"]), int(found["last"])
        if abs(last - first) >= MOST_NAMES:
            raise ConfigError(f"{name} stands for more than {MOST_NAMES:,} files")
        width = len(found["first"])
        step = 1 if last >= first else -1
        parts = [f"{i:0{width}d}" for i in range(first, last + step, step)]
    else:
        parts = found["names"].split(",")
    rest = expand_braces(name[found.end() :])
    if len(parts) * len(rest) > MOST_NAMES:
        raise ConfigError(f"{name} stands for more than {MOST_NAMES:,} files")
    return [name[: found.start()] + part + end for part in parts for end in rest]


def fps_of(options: Mapping[str, str]) -> float | None:
    """Frames a second of videos, None where no option says.

    Raises:
        ConfigError: not a number above 0.
    """
    if FPS not in options:
        return None
    try:
        rate = float(options[FPS])
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise ConfigError(f"--fps must lie above 0 and up to 1,000, got {options[FPS]}")
    return rate


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError):
        return False
