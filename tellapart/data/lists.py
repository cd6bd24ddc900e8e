"""Lists of files: text with a path a line, and a label and a split beside it where there is one.

Tabs, commas, semicolons, bars and blanks separate; a line of headings is recognised; quotes, marks
of byte order, UTF-16, and names that are not UTF-8 are understood.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from . import endings
from .folders import ending_of, split_of
from .notes import Note, counted, note, shown, tally
from .opening import Listing, decode_text, is_file, read_bytes, readable, reason

PATH = {
    "path", "paths", "file", "files", "filename", "file_name", "filepath", "file_path", "name",
    "image", "images", "img", "image_path", "img_path", "image_name", "image_file", "audio",
    "audio_path", "audio_file", "sound", "wav", "relative_path", "full_path", "fname", "uri", "id",
}  # fmt: skip
LABEL = {
    "label", "labels", "class", "classes", "category", "categories", "target", "y", "species",
    "class_name", "label_name", "class_id", "speaker", "tag",
}  # fmt: skip
SPLIT = {"split", "splits", "set", "subset", "partition", "part", "usage"}
KNOWN = frozenset().union(*endings.KINDS.values(), *endings.FOREIGN.values())
_ENDINGS = "|".join(sorted((re.escape(e) for e in KNOWN), key=len, reverse=True))
_BLANKS = re.compile(rf"^(.*?(?:{_ENDINGS})[\"']?)\s+(\S.*)$", re.IGNORECASE)
_PATH_LIKE = re.compile(r"^\S*[\\/]\S*$")
PROBED = 1000  # lines from which the separator is chosen


@dataclass(frozen=True)
class Table:
    """A list in cells: each row with its line number, and which column is the path."""

    rows: list[tuple[int, list[str]]]
    path: int
    likely: float  # share of the probed lines in which a path was seen


def read_table(path: Path) -> Table:
    """The cells of a list, by the separator with which most lines name a file.

    Raises:
        DataError: it cannot be read.
    """
    lines = text_of(path)
    best: tuple[tuple[float, ...], Table] | None = None
    for rank, cut in enumerate((_csv("\t"), _csv(","), _csv(";"), _csv("|"), _by_blanks, _whole)):
        rows = cut(lines)
        if rows is None:
            continue
        probed = [cells for _, cells in rows[:PROBED]]
        place, likely = _path_column(probed, path.parent)
        there = sum(is_file(_resolved(path.parent, c[place])) for c in probed if len(c) > place)
        score = (likely * len(probed), float(there), -float(rank))
        if best is None or score > best[0]:
            best = score, Table(rows, place, likely)
    if best is None:
        return Table([], 0, 0.0)
    return best[1]


def is_list(path: Path) -> bool:
    """Whether most lines of a text file name files."""
    try:
        return read_table(path).likely > 0.5
    except DataError:
        return False


def kind_of_list(path: Path) -> str | None:
    """The kind of data that most lines of a list name; None: it is no list."""
    table = read_table(path)
    if table.likely <= 0.5:
        return None
    found = Counter(ending_of(c[table.path]) for _, c in table.rows if len(c) > table.path)
    counts = {
        kind: sum(n for e, n in found.items() if e in known or e in endings.FOREIGN.get(kind, {}))
        for kind, known in endings.KINDS.items()
    }
    counts.pop("text")
    return max(counts, key=lambda kind: counts[kind])


def list_file(path: Path) -> Listing:
    """The files that a list names, with their labels and splits.

    Paths are relative to the list, or absolute. A file that is named twice counts once.

    Raises:
        DataError: the list cannot be read.
    """
    table = read_table(path)
    rows, notes = list(table.rows), []
    width = max((len(cells) for _, cells in rows), default=1)
    columns = {"path": table.path}
    if rows and _is_heading([cells for _, cells in rows], table.path, path.parent):
        heading = [cell.strip() for cell in rows[0][1]]
        columns |= _columns_of_heading(heading, table.path)
        unused = [
            h or f"column {i + 1}" for i, h in enumerate(heading) if i not in columns.values()
        ]
        rows = rows[1:]
    else:
        columns |= _columns_of_values([cells for _, cells in rows], table.path, width)
        unused = [f"column {i + 1}" for i in range(width) if i not in columns.values()]
    if unused:
        text = f"{counted(len(unused), 'column')} of {path.name} not used: {shown(unused)}"
        notes.append(note("columns", text, count=len(unused), names=unused))
    return _listing(path, rows, columns, notes)


def _listing(
    path: Path, rows: Sequence[tuple[int, list[str]]], columns: dict[str, int], notes: list[Note]
) -> Listing:
    names: list[str] = []
    labels: list[str | None] = []
    splits: list[str | None] = []
    empty, twice, seen = [], [], set()
    for number, cells in rows:
        value = {what: cells[i].strip() if len(cells) > i else "" for what, i in columns.items()}
        if not value["path"]:
            if any(cell.strip() for cell in cells):
                empty.append(str(number))
            continue
        name = _resolved_name(path.parent, value["path"])
        if name in seen:
            twice.append(readable(name))
            continue
        seen.add(name)
        names.append(name)
        labels.append(value.get("label") or None)
        split = value.get("split") or ""
        splits.append(split_of(split) or split.lower() or None)
    if empty:
        text = f"{counted(len(empty), 'line')} of {path.name} without a path: {shown(empty)}"
        notes.append(note("lines", text, count=len(empty), names=empty))
    if twice:
        text = f"{counted(len(twice), 'line')} of {path.name} name a file again: {shown(twice)}"
        notes.append(note("named twice", text, count=len(twice), names=twice))
    given = [s for s in splits if s]
    if given:
        text = f"splits by the list: {tally(given)}"
        if "train" not in given:
            text += "; none of them is train: they are not used"
        notes.append(note("splits", text))
    return Listing(path.parent, names, labels, splits, [], notes)


def text_of(path: Path) -> str:
    """The text of a file; bytes that are no UTF-8 stay as the file system spells them.

    Raises:
        DataError: it cannot be read.
    """
    try:
        raw = read_bytes(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{readable(str(path))} cannot be read: {reason(error)}") from error
    try:
        text = decode_text(raw)
    except UnicodeDecodeError:  # names in bytes, as the file system has them
        text = raw.decode("utf-8", "surrogateescape")
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def cells_of(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The cells of lines of CSV; lines that are not CSV are cut at every separator.

    >>> cells_of(['a,"b,c"', "d,e"], ","), cells_of(["a,b\\rc"], ",")
    ([['a', 'b,c'], ['d', 'e']], [['a', 'b\\rc']])
    """
    try:
        return list(csv.reader(lines, delimiter=separator))
    except csv.Error:  # a line end inside a cell, or a cell of more than 131,072 characters
        return [line.split(separator) for line in lines]


Cut = Callable[[str], list[tuple[int, list[str]]] | None]


def _csv(separator: str) -> Cut:
    def cut(text: str) -> list[tuple[int, list[str]]] | None:
        if separator not in text:
            return None
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            rows = [(reader.line_num, cells) for cells in reader if any(cells)]
        except csv.Error:
            return None
        if any("\n" in cell for _, cells in rows for cell in cells):  # a lone quote swallows lines
            rows = [
                (number, line.split(separator))
                for number, line in enumerate(text.split("\n"), 1)
                if line.strip()
            ]
        return rows

    return cut


def _by_blanks(text: str) -> list[tuple[int, list[str]]] | None:
    """A path up to its ending, a label, and a split where the last word is one."""
    rows, cut = [], False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _BLANKS.match(line.strip())
        if not match:
            rows.append((number, [line.strip()]))
            continue
        cut = True
        name, rest = match.group(1).strip("\"'"), match.group(2)
        words = rest.split()
        if len(words) > 1 and split_of(words[-1]):
            rows.append((number, [name, " ".join(words[:-1]), words[-1]]))
        else:
            rows.append((number, [name, rest.strip()]))
    return rows if cut else None


def _whole(text: str) -> list[tuple[int, list[str]]]:
    lines = ((n, line.strip()) for n, line in enumerate(text.split("\n"), 1))
    return [(n, [_unquoted(line)]) for n, line in lines if line]


def _unquoted(text: str) -> str:
    """A name without the quotes around it."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _path_column(rows: Sequence[Sequence[str]], root: Path) -> tuple[int, float]:
    """The column that names files most often, and in which share of the rows."""
    counts: Counter[int] = Counter()
    for cells in rows:
        for i, cell in enumerate(cells[:8]):
            text = _unquoted(cell.strip())
            if (
                ending_of(text) in KNOWN
                or (_PATH_LIKE.match(text) and not _is_number(text))
                or (len(text) < 200 and text and is_file(_resolved(root, text)))
            ):
                counts[i] += 1
    if not counts or not rows:
        return 0, 0.0
    place = min(counts, key=lambda i: (-counts[i], i))
    return place, counts[place] / len(rows)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[\d/.:\\-]+", text))


def _is_heading(rows: Sequence[Sequence[str]], place: int, root: Path) -> bool:
    """Whether the first row names the columns: its cell for the path is no path."""
    first = [cell.strip().lower() for cell in rows[0]]
    cell = first[place] if len(first) > place else ""
    if ending_of(cell) in KNOWN or "/" in cell or is_file(_resolved(root, rows[0][0])):
        return False
    return cell in PATH or bool({*first} & (LABEL | SPLIT)) or (len(rows) > 2 and len(first) > 1)


def _columns_of_heading(heading: Sequence[str], path: int) -> dict[str, int]:
    found = {}
    for what, known in (("label", LABEL), ("split", SPLIT)):
        places = [i for i, name in enumerate(heading) if name.lower() in known and i != path]
        if places:
            found[what] = places[0]
    return found


def _columns_of_values(rows: Sequence[Sequence[str]], path: int, width: int) -> dict[str, int]:
    """Without a heading: a column of splits alone is the split, the first other one the label."""
    found: dict[str, int] = {}
    for i in range(width):
        cells = [c[i].strip() for c in rows if len(c) > i and c[i].strip()]
        if i == path or not cells:
            continue
        names = {split_of(cell) for cell in cells}
        if "split" not in found and width > 2 and None not in names and "train" in names:
            found["split"] = i
        elif "label" not in found:
            found["label"] = i
    return found


def _resolved(root: Path, name: str) -> Path:
    return root / _resolved_name(root, name)


def _resolved_name(root: Path, name: str) -> str:
    """A name as the file system has it: without quotes, and with its own separators."""
    name = _unquoted(name.strip())
    if "\\" in name and not is_file(root / name):
        turned = name.replace("\\", "/")
        if is_file(root / turned):
            return turned
    return name
