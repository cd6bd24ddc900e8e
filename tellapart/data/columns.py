"""Which column of a table is the item, its label, its split and its id; free of numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import endings
from .folders import ending_of
from .lists import LABEL, PATH, SPLIT

SENTENCES = {
    "sent0", "sent1", "hard_neg", "sentence1", "sentence2", "anchor", "positive", "negative",
    "premise", "hypothesis", "text", "sentence", "query", "question", "answer", "sentence_a",
    "sentence_b",
}  # fmt: skip
IDS = {"id", "ids", "key", "__key__", "uid", "guid", "uuid", "image_id", "item_id"}
CONTENT = ("image", "audio", "series", "path", "text")
KIND_OF_ROLE = {"image": "images", "audio": "audio", "series": "series", "text": "text"}


@dataclass(frozen=True)
class Chosen:
    """The columns that are used.

    Attributes:
        kind: "images", "audio", "series" or "text".
        content: the column of the items; up to three of sentences.
        label, split, id: columns, None where there is none.
        unused: the other columns.
    """

    kind: str
    content: tuple[str, ...]
    label: str | None = None
    split: str | None = None
    id: str | None = None
    unused: tuple[str, ...] = field(default=())


def choose(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    given: Mapping[str, str],
    *,
    kind: str | None = None,
    types: Mapping[str, str] | None = None,
) -> Chosen:
    """Choose the columns of a table: as given, else by type, name and contents.

    Args:
        name: of the table, for messages.
        columns: their names.
        rows: the first rows.
        given: roles that the user named, as `specs.columns_of`.
        kind: the kind that the user asked for, None: any.
        types: roles that the table itself states ("image", "audio", "text", "series", "label").

    Raises:
        DataError: no column holds items, or a named column is not there.
    """
    for role, column in given.items():
        if column not in columns:
            raise DataError(
                f"{name} has no column {column!r} for {role}; its columns: {', '.join(columns)}"
            )
    types = types or {}
    known = {role: given.get(role) for role in ("label", "split", "id")}
    free = [c for c in columns if c not in given.values()]
    known["label"] = known["label"] or next((c for c in free if types.get(c) == "label"), None)
    for role, names in (("split", SPLIT), ("label", LABEL)):
        if known[role] is None:
            known[role] = next((c for c in free if _plain(c) in names and c not in types), None)
    free = [c for c in free if c not in known.values()]
    found = _given_content(given) or _content(free, rows, types, kind)
    if found is None:
        raise DataError(
            f"{name} has no column of images, sounds, sentences or paths that is recognised; name "
            f"it: --columns image=COLUMN,label=COLUMN (or audio=, text=, path=); its columns: "
            f"{', '.join(columns)}"
        )
    role, content = found
    if known["id"] is None:
        known["id"] = next((c for c in free if _plain(c) in IDS and c not in content), None)
    sort = KIND_OF_ROLE.get(role) or kind or _kind_of_cells(name, content[0], rows)
    used = {*content, *known.values()}
    unused = tuple(c for c in columns if c not in used)
    return Chosen(sort, content, known["label"], known["split"], known["id"], unused)


def file_of(cell: Any) -> tuple[bytes | None, str | None]:
    """Bytes and path of a cell: bytes, a path, or {"bytes", "path"} as Hugging Face writes it."""
    if isinstance(cell, Mapping):
        raw, path = cell.get("bytes"), cell.get("path")
        return (bytes(raw) if raw is not None else None), (str(path) if path else None)
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell), None
    return None, (str(cell).strip() or None) if cell is not None else None


def _given_content(given: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    role = next((r for r in CONTENT if r in given), None)
    if role is None:
        return None
    if role == "text":
        return role, tuple(given[r] for r in ("text", "text2", "text3") if r in given)
    return role, (given[role],)


def _content(
    free: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    types: Mapping[str, str],
    kind: str | None,
) -> tuple[str, tuple[str, ...]] | None:
    """Role and columns of the items."""
    for role in ("image", "audio", "series"):
        found = [c for c in free if types.get(c) == role]
        if found and kind in (None, KIND_OF_ROLE[role]):
            return role, (found[0],)
    if kind in (None, "images", "audio"):
        held = [c for c in free if any(file_of(r.get(c))[0] is not None for r in rows)]
        if held:
            return "path", (held[0],)
        named = [c for c in free if _share(c, rows, _names_a_file) > 0.5]
        usual = [c for c in named if _plain(c) in PATH] or named
        if usual:
            return "path", (usual[0],)
    if kind in (None, "text"):
        texts = [c for c in free if _plain(c) in SENTENCES and _share(c, rows, _is_text) > 0.5]
        stated = [c for c in free if types.get(c) == "text"]
        if texts or len(stated) == 1 or (stated and kind == "text"):
            return "text", tuple(texts[:3] or stated[:1])
    if kind in (None, "series"):
        lists = [c for c in free if _share(c, rows, _is_numbers) > 0.5]
        if lists:
            return "series", (lists[0],)
    return None


def _kind_of_cells(name: str, column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The kind of files that the cells of a column hold or name."""
    counts: Counter[str] = Counter()
    for row in rows:
        raw, path = file_of(row.get(column))
        ending = ending_of((path or "").partition("?")[0] if "://" in (path or "") else path or "")
        counts.update(
            kind for kind in ("images", "audio", "series") if ending in endings.KINDS[kind]
        )
        if raw is not None and ending not in endings.AUDIO:
            sound = raw[:4] in (b"fLaC", b"OggS", b"FORM") or raw[:3] == b"ID3"
            counts["audio" if sound or raw[8:12] == b"WAVE" else "images"] += 1
    if not counts:
        raise DataError(
            f"{name}: the column {column!r} names no files of a known ending; say what it holds: "
            f"--columns image={column} or audio={column}"
        )
    return max(counts, key=lambda kind: counts[kind])


def _share(column: str, rows: Sequence[Mapping[str, Any]], test: Any) -> float:
    cells = [r[column] for r in rows if r.get(column) is not None]
    return sum(map(test, cells)) / len(cells) if cells else 0.0


def _names_a_file(cell: Any) -> bool:
    known = endings.IMAGES | endings.AUDIO
    if not isinstance(cell, str | Path):
        return False
    name = str(cell).strip()
    return ending_of(name.partition("?")[0] if "://" in name else name) in known


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str)


def _is_numbers(cell: Any) -> bool:
    """Whether a cell is a list of numbers, or an array."""
    if hasattr(cell, "dtype") and hasattr(cell, "ndim"):
        return bool(cell.ndim) and cell.dtype.kind in "fiu"
    if not isinstance(cell, list | tuple) or not cell:
        return False
    while isinstance(cell, list | tuple) and cell:
        cell = cell[0]
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _plain(column: str) -> str:
    return column.strip().lower()
