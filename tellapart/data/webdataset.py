"""WebDataset: tar shards whose members share a key, such as 0001.jpg, 0001.cls and 0001.json.

The key becomes the id; `.cls`, fields of `.json`, and `.txt` beside images give labels. Members are
read in place; those that cannot be used are listed. Pickled members are never read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import DataError
from . import endings, folders, specs
from .archives import Member, is_tar, members, stem
from .columns import SENTENCES
from .lists import LABEL, SPLIT
from .notes import Note, counted, note, shown, tally
from .opening import decode_text, readable, reason
from .records import Record, Records, Skipped, file_key, label_name, split_name

CLASS = frozenset({"cls", "cls2", "class", "label"})
TEXT = frozenset({"txt", "text", "transcript"})
JSON = frozenset({"json", "jsn"})
COMPANIONS = CLASS | TEXT | JSON
LONGEST = 10_000_000  # bytes of a member that describes another one
KINDS = ("images", "audio", "series")  # of members that are items themselves
TOLD = 0.5  # share of different texts up to which texts are labels, not descriptions
Key = tuple[int, str]  # number of the shard, key of the sample


@dataclass
class Survey:
    """The names of all members, and the contents of those that describe others.

    Attributes:
        content: kind -> key -> names of members.
        fields: key -> what its .cls, .txt and .json hold; fields of a .json by their own names.
        shards: number of a shard -> its path below the common folder.
        hidden, others: names of members that are left out.
        skipped: members that cannot be read, with the reason.
    """

    content: dict[str, dict[Key, list[str]]] = field(default_factory=dict)
    fields: dict[Key, dict[str, Any]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def key_of(name: str) -> tuple[str, str]:
    """Key and ending of a member: its ending starts at the first point of its file name.

    >>> key_of("train/0001.left.jpg"), key_of("a.b/c")
    (('train/0001', 'left.jpg'), ('a.b/c', ''))
    """
    folder, mark, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return f"{folder}{mark}{key}", ending.lower()


def kind_of_member(name: str) -> str | None:
    """The kind of item that a member is by its ending; None: it is none.

    >>> kind_of_member("1.JPG"), kind_of_member("1.cls")
    ('images', None)
    """
    ending = folders.ending_of(name)
    return next((kind for kind in KINDS if ending in endings.KINDS[kind]), None)


def survey(shards: Sequence[Path]) -> Survey:
    """Read the names in all shards, and the members that describe others."""
    found = Survey()
    for number, shard in enumerate(shards):
        for member in members(shard):
            if isinstance(member, Skipped):
                found.skipped.append(member)
                continue
            key, ending = key_of(member.name)
            kind = kind_of_member(member.name)
            if any(folders.is_hidden(part) for part in member.name.split("/")):
                found.hidden.append(member.name)
            elif kind is not None:
                found.content.setdefault(kind, {}).setdefault((number, key), []).append(member.name)
            elif ending.rpartition(".")[2] in COMPANIONS:
                _take(found, (number, key), ending.rpartition(".")[2], member, shard)
            else:
                found.others.append(member.name)
    return found


def is_sample_set(shards: Sequence[Path], found: Survey) -> bool:
    """Whether archives hold samples of WebDataset, and not a folder that someone packed.

    They do if members describe others, or if all are tars without folders inside.
    """
    keys = {key for by_key in found.content.values() for key in by_key}
    described = keys & found.fields.keys()
    texts_only = not keys and bool(found.fields)
    flat = not any("/" in key for _, key in keys | found.fields.keys())
    labelled = any(CLASS & row.keys() or len(row) > 1 for row in found.fields.values())
    tars = all(map(is_tar, shards))
    return bool(described) or (tars and flat) or (texts_only and (tars or labelled))


def records(
    shards: Sequence[Path],
    root: Path,
    found: Survey,
    options: Mapping[str, str],
    kind: str | None = None,
) -> Records:
    """The samples of shards as records.

    Args:
        shards: the archives.
        root: the folder that names of shards are relative to.
        found: what they hold.
        options: roles of columns: endings of members, or fields of their .json.
        kind: the kind that the user asked for; None: that of most samples.

    Raises:
        DataError: they hold nothing of this kind, or no such column.
    """
    name = shards[0].name if len(shards) == 1 else f"{len(shards):,} shards"
    given = {role: column for role, column in options.items() if role in specs.ROLES}
    chosen = _kind(name, found, given, kind)
    about = [_of_shard(shard, root) for shard in shards]
    parts = about if "train" in about else [None] * len(about)
    label, notes = _label_column(name, found, given, chosen)
    notes += _notes(name, found, chosen, label)
    text = _text_column(name, found, given) if chosen == "text" else None

    def read() -> Iterator[Record | Skipped]:
        yield from found.skipped
        if text is not None:
            for key, row in found.fields.items():
                words = " ".join(str(row.get(text) or "").split())
                if words:
                    yield _record(key, key[1], (words,), row, label, given, parts)
                else:
                    yield Skipped(_shown(shards, key, ""), "empty: no sentence")
            return
        for number, shard in enumerate(shards):
            yield from _items(number, shard)

    def _items(number: int, shard: Path) -> Iterator[Record | Skipped]:
        wanted = found.content[chosen]
        for member in members(shard):
            if isinstance(member, Skipped) or kind_of_member(member.name) != chosen:
                continue
            key, ending = (number, key_of(member.name)[0]), key_of(member.name)[1]
            several = wanted.get(key, [])
            if member.name not in several:  # hidden
                continue
            if _content(given) not in (None, ending, ending.rpartition(".")[2]):
                continue
            row = found.fields.get(key, {})
            try:
                raw = member.read()
            except Exception as error:  # as in `members`
                yield Skipped(f"{shard.name}/{readable(member.name)}", reason(error))
                continue
            alone = len(several) == 1 or _content(given) is not None
            own = key[1] if alone else member.name
            yield _record(key, own, raw, row, label, given, parts, folders.ending_of(member.name))

    made = repr([file_key(shard) for shard in shards] + [sorted(given.items()), chosen, label])
    return Records(chosen, made, read, root, (), notes)


def _take(found: Survey, key: Key, ending: str, member: Member, shard: Path) -> None:
    """Read a member that describes its sample."""
    try:
        raw = member.read()
        if len(raw) > LONGEST:
            raise ValueError(f"too large: {len(raw):,} bytes")
        row = found.fields.setdefault(key, {})
        if ending not in JSON:
            row["txt" if ending in TEXT else ending] = decode_text(raw).strip()
            return
        value = msgspec.json.decode(raw)
        if not isinstance(value, dict):
            value = {"json": value}
        row.update({k: v for k, v in value.items() if not isinstance(v, dict | list)})
    except Exception as error:  # damaged members, texts and JSON
        found.skipped.append(Skipped(f"{shard.name}/{readable(member.name)}", reason(error)))


def _kind(name: str, found: Survey, given: Mapping[str, str], kind: str | None) -> str:
    """The kind of the samples: as named, else that of most."""
    for role, meant in (("image", "images"), ("audio", "audio"), ("series", "series")):
        if role in given:
            kind = meant
    if "text" in given:
        kind = "text"
    counts = {k: len(found.content.get(k, {})) for k in KINDS}
    first = max(("images", "audio"), key=lambda k: counts[k])
    kind = kind or (first if counts[first] else "series" if counts["series"] else "text")
    if (kind == "text" and not found.fields) or (kind != "text" and not counts[kind]):
        held = tally([folders.ending_of(n) or "(none)" for n in found.others])
        words = f"; it holds {held}" if held else ""
        if found.skipped:
            words += f"; left out: {found.skipped[0].path}: {found.skipped[0].reason}"
        raise DataError(f"{readable(name)} holds no {kind}{words}")
    return kind


def _content(given: Mapping[str, str]) -> str | None:
    """The ending of members that the user named as items, without its point."""
    named = next((given[r] for r in ("image", "audio", "series") if r in given), None)
    return named.lower().removeprefix(".") if named else None


def _fields(found: Survey) -> Counter[str]:
    return Counter(name for row in found.fields.values() for name in row)


def _text_column(name: str, found: Survey, given: Mapping[str, str]) -> str:
    held = _fields(found)
    if "text" in given:
        return _there(name, "text", given["text"].removeprefix("."), held)
    usual = ["txt", *sorted(SENTENCES)]
    column = next((c for c in usual if c in held), None)
    if column is None:
        raise DataError(
            f"{name} has no sentences that are recognised; name them: --columns text=FIELD; its "
            f"fields: {', '.join(held)}"
        )
    return column


def _there(name: str, role: str, column: str, held: Counter[str]) -> str:
    if column not in held:
        raise DataError(
            f"{readable(name)} has no column {column!r} for {role}; its columns: "
            f"{', '.join(sorted(held))}"
        )
    return column


def _label_column(
    name: str, found: Survey, given: Mapping[str, str], kind: str
) -> tuple[str | None, list[Note]]:
    """The field that gives the labels: .cls, then fields of .json, then .txt where they repeat."""
    held = _fields(found)
    for role in ("label", "split", "id"):
        if role in given:
            _there(name, role, given[role].removeprefix("."), held)
    if "label" in given:
        return given["label"].removeprefix("."), []
    for column in sorted(CLASS, key=lambda c: (c != "cls", c)):
        if column in held:
            return column, []
    field_of_json = next((c for c in held if c.strip().lower() in LABEL), None)
    if field_of_json is not None or "json" in held:
        return field_of_json or "json", []
    if kind == "text" or "txt" not in held:
        return None, []
    texts = [str(row["txt"]) for row in found.fields.values() if "txt" in row]
    different = len(set(texts))
    if different <= TOLD * len(texts):
        words = f"labels of {name}: its .txt, {counted(different, 'different text')}"
        return "txt", [note("labels", words, count=different)]
    words = (
        f".txt beside the items of {name} not used: {different:,} of {len(texts):,} differ, so "
        "they are descriptions; --columns label=txt makes them labels"
    )
    return None, [note("descriptions", words, count=len(texts))]


def _notes(name: str, found: Survey, kind: str, label: str | None) -> list[Note]:
    """The items that are used, and those that are left out."""
    notes = []
    total = len(found.fields if kind == "text" else found.content[kind])
    words = f"{counted(total, 'sample')} of {name}: {kind}" + (f", label {label}" if label else "")
    notes.append(note("samples", words, count=total))
    usual = {"txt", label or ""}
    unused = [c for c in _fields(found) if c not in usual and c.strip().lower() not in SPLIT]
    if unused:
        words = f"{counted(len(unused), 'field')} of {name} not used: {shown(unused)}"
        notes.append(note("columns", words, count=len(unused), names=unused))
    for other in KINDS:
        names = [n for held in found.content.get(other, {}).values() for n in held]
        if other != kind and names:
            words = f"{counted(len(names), 'member')} of {name} left out: it is read as {kind}"
            if other != "series":
                words += f"; --data {other}:PATH reads them"
            notes.append(
                note(f"other data: {other}", words, count=len(names), names=map(readable, names))
            )
    if found.others:
        kinds = tally([folders.ending_of(n) or "(none)" for n in found.others])
        words = f"{counted(len(found.others), 'member')} with other endings left out: {kinds}"
        names = list(map(readable, found.others))
        notes.append(note("other endings", words, count=len(names), names=names))
    if found.hidden:
        words = f"{counted(len(found.hidden), 'hidden or system file')} left out"
        names = list(map(readable, found.hidden))
        notes.append(note("hidden", words, count=len(names), names=names))
    orphans = [k for k in found.fields if kind != "text" and k not in found.content[kind]]
    if orphans:
        words = f"{counted(len(orphans), 'sample')} of {name} without a member of {kind} left out"
        names = [readable(k[1]) for k in orphans]
        notes.append(note("incomplete samples", words, count=len(orphans), names=names))
    return notes


def _record(
    key: Key,
    own: str,
    value: bytes | tuple[str, ...],
    row: Mapping[str, Any],
    label: str | None,
    given: Mapping[str, str],
    parts: Sequence[str | None],
    ending: str = "",
) -> Record:
    split = given.get("split", "").removeprefix(".") or next(
        (c for c in row if c.strip().lower() in SPLIT), None
    )
    part = split_name(row.get(split)) if split else None
    named = label_name(row.get(given["id"].removeprefix("."))) if "id" in given else None
    text = label_name(_number(row.get(label))) if label else None
    return Record(named or readable(own), value, text, part or parts[key[0]], ending)


def _number(value: Any) -> Any:
    """A class number that is written as text, as a number; -1 means that there is no label."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) else value


def _of_shard(shard: Path, root: Path) -> str | None:
    """The split that the name or a folder of a shard tells."""
    place = shard.relative_to(root) if shard.is_relative_to(root) else Path(shard.name)
    words = [*place.parts[:-1], *re.split(r"[-_.]", stem(shard))]
    return next((split for word in words if (split := folders.split_of(word))), None)


def _shown(shards: Sequence[Path], key: Key, ending: str) -> str:
    return f"{shards[key[0]].name}/{readable(key[1])}{ending}"
