"""The contents of a folder: the files of one kind of data, with labels and splits from its folders.

Links are followed, each folder once. Hidden files, folders of systems and programs, and what this
package wrote itself are left out and counted; files with other endings are counted and named.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from . import endings
from .notes import Note, counted, note, shown, tally
from .opening import Listing, read_bytes, readable

SYSTEM = {
    "@eadir", "#recycle", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin",
    "system volume information", "lost+found", ".thumbnails", "__pycache__", "thumbs.db",
    "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip
_SUFFIX = r"(?:[-_ ]?(?:set|data|split|part|images?|imgs?|pictures|audio|wav|\d{2,4}))?"
TRAIN = re.compile(rf"(?:train|training|trn|learn){_SUFFIX}", re.IGNORECASE)
TEST = re.compile(
    rf"(?:test|testing|tst|val|valid|validation|validate|dev|eval|evaluation|holdout){_SUFFIX}",
    re.IGNORECASE,
)
DEEPEST = 3  # levels of folders at which a split may stand
LabelLevel = str  # "top", "last", or a number from 1


def split_of(name: str) -> str | None:
    """The split that a folder or a cell of a list names, None where it names none.

    >>> split_of("Training"), split_of("val2017"), split_of("dev"), split_of("trains")
    ('train', 'test', 'test', None)
    """
    if TRAIN.fullmatch(name.strip()):
        return "train"
    return "test" if TEST.fullmatch(name.strip()) else None


@dataclass
class Walk:
    """All that a folder holds, by what it is: names relative to the folder."""

    root: Path
    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        """How many files each kind of data has, those that cannot be read among them."""
        by_ending = Counter(ending_of(name) for name in self.files)
        found: Counter[str] = Counter()
        for kind, known in endings.KINDS.items():
            foreign = endings.FOREIGN.get(kind, {})
            found[kind] = sum(n for e, n in by_ending.items() if e in known or e in foreign)
        return found


def ending_of(name: str) -> str:
    """The ending of a file name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def walk(root: Path) -> Walk:
    """Everything below a folder, in a fixed order."""
    found = Walk(root)
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        path = os.path.relpath(str(error.filename or root), root)
        found.unreadable.append({"path": path, "reason": error.strerror or str(error)})

    for folder, inner, files in os.walk(root, followlinks=True, onerror=unreadable):
        place = os.path.relpath(folder, root)
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            found.twice.append(place)
            continue
        seen.add(real)
        if place != "." and _is_ours(folder, files):
            inner.clear()
            found.own.append(place)
            continue
        for name in sorted(inner):
            if is_hidden(name):
                found.hidden.extend(_inside(os.path.join(folder, name), root))
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        for name in files:
            path = name if place == "." else os.path.join(place, name)
            (found.hidden if is_hidden(name) else found.files).append(path)
    found.files.sort()
    found.hidden.sort()
    return found


def kind_of_folder(root: Path) -> str:
    """The kind of data of most files of a folder; a folder of texts holds nothing else."""
    counts = walk(root).kinds()
    first = [kind for kind in endings.KINDS if kind not in ("series", "text")]
    if any(counts[kind] for kind in first):  # tables and texts often lie beside the data
        return max(first, key=lambda kind: counts[kind])
    return next((kind for kind in ("series", "text") if counts[kind]), "images")


def list_folder(root: Path, kind: str, *, label_level: LabelLevel = "top") -> Listing:
    """The files of one kind below `root`.

    A folder named train (training, Train, train2017, ...) beside test, val or dev makes splits, at
    the first level or below a folder that holds them all. Of the other folders, the one at
    `label_level` is the label.

    Args:
        root: the folder.
        kind: "images", "audio", "series" or "text".
        label_level: "top" (the first level at which folders differ), "last", or a number from 1.
    Raises:
        ConfigError: a level that no file has.
    """
    found = walk(root)
    wanted = endings.KINDS[kind]
    names = [name for name in found.files if ending_of(name) in wanted]
    folders = [Path(name).parts[:-1] for name in names]
    notes = [*_left_out(found, kind, names)]
    places = labels_of_folders(Counter(folders), label_level, notes)
    labels = [places[folder][0] for folder in folders]
    splits = [places[folder][1] for folder in folders]
    return Listing(root, names, labels, splits, found.unreadable, notes)


def labels_of_folders(
    counts: Mapping[tuple[str, ...], int], label_level: LabelLevel, notes: list[Note]
) -> dict[tuple[str, ...], tuple[str | None, str | None]]:
    """The label and the split of the files of each folder.

    Args:
        counts: folder, as its parts below the root -> number of files in it.
        label_level: as for `list_folder`.
        notes: on what was decided; they are added.

    Raises:
        ConfigError: a level that no file has.
    """
    folders = list(counts)
    splits, rest = _splits(counts, notes)
    labels = _labels(rest, label_level, notes)
    return dict(zip(folders, zip(labels, splits, strict=True), strict=True))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: hidden, or of the system."""
    return name.startswith(".") or name.lower() in SYSTEM


def _inside(folder: str, root: Path) -> Iterator[str]:
    """The files of a folder that is left out; one name for an empty one."""
    for place, _, files in os.walk(folder):
        yield from (os.path.relpath(os.path.join(place, name), root) for name in files)


def _is_ours(folder: str, files: Sequence[str]) -> bool:
    """Whether this package wrote the folder: a run, saved embeddings, or a cache."""
    if "CACHEDIR.TAG" in files or {"items.npz", "vectors.npy"} <= set(files):
        return True
    if "run.json" not in files:
        return False
    try:
        return b'"tellapart"' in read_bytes(os.path.join(folder, "run.json"))
    except (OSError, ValueError):
        return False


def _left_out(found: Walk, kind: str, names: Sequence[str]) -> Iterator[Note]:
    """Notes on the files that are not taken."""
    taken = set(names)
    companions = endings.COMPANIONS.get(kind, frozenset())
    others = [n for n in found.files if n not in taken and ending_of(n) not in companions]
    for other, word in (("images", "image"), ("audio", "sound")):
        theirs = [n for n in others if ending_of(n) in endings.KINDS[other]]
        if other != kind and theirs:
            text = (
                f"{counted(len(theirs), word)} left out: {readable(str(found.root))} is read as "
                f"{kind}; --data {other}:{readable(str(found.root))} reads them"
            )
            yield note(f"other data: {other}", text, count=len(theirs), names=_readable(theirs))
            others = [n for n in others if ending_of(n) not in endings.KINDS[other]]
    if others:
        kinds = [ending_of(n) or "(none)" for n in others]
        remedies = [
            f"{e} are {endings.REMEDIES[e]}" for e in sorted({*kinds} & {*endings.REMEDIES})
        ]
        text = "; ".join(
            [
                f"{counted(len(others), 'file')} with other endings left out: {tally(kinds)}",
                *remedies,
            ]
        )
        yield note("other endings", text, count=len(others), names=_readable(others))
    if found.hidden:
        text = f"{counted(len(found.hidden), 'hidden or system file')} left out"
        yield note("hidden", text, count=len(found.hidden), names=_readable(found.hidden))
    if found.own:
        text = f"{counted(len(found.own), 'folder')} written by tellapart left out: "
        text += shown(_readable(found.own))
        yield note("own folders", text, count=len(found.own), names=_readable(found.own))
    if found.twice:
        text = f"{counted(len(found.twice), 'link')} to folders that are read already left out: "
        text += shown(_readable(found.twice))
        yield note("links", text, count=len(found.twice), names=_readable(found.twice))


def _readable(names: Sequence[str]) -> list[str]:
    return [readable(name) for name in names]


def _splits(
    counts: Mapping[tuple[str, ...], int], notes: list[Note]
) -> tuple[list[str | None], list[tuple[str, ...]]]:
    """The split of each folder, and its parts without that one; `counts` are its files."""
    folders = list(counts)
    for level in range(DEEPEST):
        given = [split_of(f[level]) if len(f) > level else None for f in folders]
        deep = sum(n for f, n in counts.items() if len(f) > level)
        inside = sum(n for n, g in zip(counts.values(), given, strict=True) if g is not None)
        if "train" not in given or 2 * inside < deep:
            continue
        named: dict[str, set[str]] = {}
        for folder, split in zip(folders, given, strict=True):
            if split:
                named.setdefault(split, set()).add(readable(folder[level]))
        said = [f"{split} from {', '.join(sorted(names))}/" for split, names in named.items()]
        notes.append(note("splits", f"splits by folders: {'; '.join(sorted(said, reverse=True))}"))
        rest = [f[:level] + f[level + 1 :] if g else f for f, g in zip(folders, given, strict=True)]
        return list(given), rest
    tests = {readable(f[0]) for f in folders if f and split_of(f[0])}
    if tests and len({f[0] for f in folders if f}) > 1:
        text = (
            f"{shown(sorted(tests))} read as a class, because there is no folder of a training part"
        )
        notes.append(note("splits", text, names=sorted(tests)))
    return [None] * len(folders), list(folders)


def _labels(
    folders: Sequence[tuple[str, ...]], level: LabelLevel, notes: list[Note]
) -> list[str | None]:
    """The label of each folder: one of its parts."""
    common = 0  # levels that hold everything are no labels
    if folders and level == "top":
        first = folders[0]
        while all(len(f) > common + 1 and f[common] == first[common] for f in folders):
            common += 1
    deepest = max(map(len, folders), default=0)
    if level == "last":
        labels = [f[-1] if f else None for f in folders]
    else:
        place = common if level == "top" else _number(level) - 1
        if level != "top" and place >= deepest and folders:
            raise ConfigError(
                f"--label-level {level}: the folders have {counted(deepest, 'level')} "
                "besides splits"
            )
        labels = [f[place] if len(f) > place else None for f in folders]
    classes = len({name for name in labels if name is not None})
    if classes > 1 and (deepest > common + 1 or level != "top" or common):
        which = {"top": f"level {common + 1}", "last": "the last level"}.get(
            level, f"level {level}"
        )
        text = f"classes are the folders at {which}: {classes:,}"
        if level == "top" and deepest > common + 1:
            text += f"; --label-level last or 1 to {deepest} chooses others"
        notes.append(note("label level", text, count=classes))
    return labels


def _number(level: str) -> int:
    if not level.isdecimal() or int(level) < 1:
        raise ConfigError(f"--label-level must be top, last or a number from 1, got {level}")
    return int(level)
