"""The report of `inspect`: tables on the terminal, and a page that shows the items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..curation import duplicates, outliers
from ..curation.inspect import Seen
from ..data import Source
from ..runtime.console import Console
from ..runtime.text import safe
from . import html

GROUPS, IN_A_GROUP, SHOWN = 12, 10, 24  # on the page: groups, items of a group, other items
NAMED = 5  # names of a finding on the terminal


def print_inspection(result: Mapping[str, Any], console: Console) -> None:
    """Print the tables of an inspection, then its verdict.

    Args:
        result: `Seen.result`.
        console: where it is printed.
    """
    training = result["training"]
    sections = {
        f"Contents of {result['data']}": contents(result),
        "Duplicates, outliers and suspect labels": findings(result),
        f"Settings of tellapart train {training['method']}": choices(training),
    }
    for title, rows in sections.items():
        console.table(("", ""), rows.items(), title=title)
    for note in result["notes"]:
        console.say(note["text"])
    for warning in training["warnings"]:
        console.say(f"! {warning}")
    for name, shown in examples(result).items():
        console.say(f"{name}: {shown}")
    console.say(result["verdict"])


def write_page(seen: Seen, out: Path, console: Console) -> None:
    """Write the page of an inspection, with pictures of what it names.

    Args:
        seen: an inspected source.
        out: the file.
        console: told where the page is.

    Raises:
        DataError: `out` cannot be written.
    """
    result, source = seen.result, seen.source
    training = result["training"]
    values = {
        "title": f"{result['data']}: before training",
        "subtitle": f"{len(source):,} {source.many} in {result['data']}",
        "verdict": result["verdict"],
        "notes": [f"Note: {warning}." for warning in training["warnings"]]
        + [f"{note['text']}." for note in result["notes"]],
        "contents": contents(result),
        "skipped": skipped_by_reason(source.skipped, source.many),
        "wrong_endings": _wrong_endings(result),
        "near": _groups(source, seen.copies.near),
        "exact": _groups(source, seen.copies.exact),
        "leaks": _leaks(seen),
        "neighbours_by": result["neighbours_by"],
        "outliers": _outliers(seen),
        "suspects": _suspects(seen),
        "method": training["method"],
        "settings": [
            (name, value, training["why"].get(name.replace(" ", "_"), ""))
            for name, value in choices(training).items()
        ],
        "classes": [(name, f"{count:,}") for name, count in result["counts"]["classes"].items()],
    }
    html.write(out, "dataset_report.html", values, console)


def contents(result: Mapping[str, Any]) -> dict[str, str]:
    """The contents of a source: name -> value, for the terminal and the page."""
    counts = result["counts"]
    facts = {"items": f"{counts['items']:,}", "splits": _listed(counts["splits"])}
    if counts["classes"]:
        facts["classes"] = f"{len(counts['classes']):,}: {_listed(counts['classes'], 10)}"
    if counts["without_label"]:
        facts["without a label"] = f"{counts['without_label']:,}"
    if sizes := result.get("sizes"):
        facts["width"], facts["height"] = _spread(sizes["width"]), _spread(sizes["height"])
        facts["common sizes"] = ", ".join(
            f"{s['width']} x {s['height']} ({s['count']:,})" for s in sizes["common"]
        )
        view = result["view"]
        facts["input of the encoder"] = (
            f"{view['image_size']} x {view['image_size']}, "
            f"{_counted(view['channels'], 'channel', 'channels')}"
        )
    for name in ("lengths", "characters"):
        if name in result:
            facts[name] = _spread(result[name])
    if "rate" in result:
        facts["sample rate"] = f"{result['rate']:,} Hz"
    named = {
        "channels": "channels", "columns": "sentences per line",
        "rates": "sample rates of the files, Hz",
        "formats": "formats", "modes": "modes", "channels_of_files": "channels of the files",
    }  # fmt: skip
    for name, title in named.items():
        if value := result.get(name):
            facts[title] = _listed(value) if isinstance(value, dict) else str(value)
    if wrong := result.get("wrong_endings", {}).get("files"):
        facts["wrong extensions"] = f"{wrong:,}"
    if moving := result.get("several_frames"):
        facts["files of several frames"] = f"{moving:,}; the first frame is used"
    facts["left out"] = f"{result['skipped']['files']:,}"
    return facts


def findings(result: Mapping[str, Any]) -> dict[str, str]:
    """Numbers of duplicates, leaks and suspect labels: name -> value."""
    copies, risk = result["duplicates"], result["training"]["false_negatives"]
    counts_by_kind = {
        "exact duplicates": _duplicates(copies["exact"]),
        "near duplicates": _duplicates(copies["near"]),
        "training items in the test part": (
            f"{copies['leaks']['items']:,} ({copies['leaks']['exact']:,} exact)"
        ),
        "duplicates with several labels": (
            _counted(copies["of_several_labels"]["groups"], "group", "groups")
        ),
        "duplicates within a batch": (
            f"{risk['pairs']:.2f} pairs expected in {result['training']['batch_size']:,} items; "
            f"{risk['item'] * 100:.2f} % of its items have one"
        ),
    }
    if len(result["counts"]["splits"]) < 2:
        del counts_by_kind["training items in the test part"]
    if result["labels"] is None:
        del counts_by_kind["duplicates with several labels"]
    else:
        counts_by_kind["suspect labels"] = (
            f"{result['labels']['items']:,} (by neighbours in {result['neighbours_by']})"
        )
    return counts_by_kind


def choices(training: Mapping[str, Any]) -> dict[str, str]:
    """The main settings of a training: name -> value."""
    kept = ("preset", "items", "image_size", "batch_size", "epochs", "steps", "encoder", "lr")
    return {
        name.replace("_", " "): f"{training[name]:,}" if isinstance(training[name], int)
        else str(training[name])
        for name in kept if name in training
    }  # fmt: skip


def examples(result: Mapping[str, Any]) -> dict[str, str]:
    """The first names of each finding."""
    copies = result["duplicates"]
    suspects = (result["labels"] or {"first": []})["first"]
    sections = {
        "left out": [f"{s['path']} ({s['reason']})" for s in result["skipped"]["first"]],
        "wrong extensions": [
            f"{w['file']} is {w['is']}" for w in result.get("wrong_endings", {}).get("first", [])
        ],
        "exact duplicates": [" = ".join(group[:NAMED]) for group in copies["exact"]["first"]],
        "near duplicates": [" ~ ".join(group[:NAMED]) for group in copies["near"]["first"]],
        "in training and test": [f"{x['train']} ~ {x['test']}" for x in copies["leaks"]["first"]],
        "outliers": [x["id"] for x in result["outliers"]["first"]],
        "suspect labels": [
            f"{x['id']} ({x['label']}; its neighbours: {x['neighbours']})" for x in suspects
        ],
    }
    return {
        name: "; ".join(map(safe, each[:NAMED])) + ("; ..." if len(each) > NAMED else "")
        for name, each in sections.items()
        if each
    }


def skipped_by_reason(skipped: Iterable[Mapping[str, str]], many: str) -> list[dict[str, Any]]:
    """Group the files that were left out by reason; reasons that differ in numbers are one.

    Args:
        skipped: {"path", "reason"} of each file.
        many: the items in the plural, such as "images".

    Returns:
        The largest group first: a title ("16 files: ..."), an example where the reasons differ,
        and the names.
    """
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for one in skipped:
        kind = re.sub(r"\d[\d,.]*", "#", str(one["reason"]).replace(str(one["path"]), "#"))
        kinds.setdefault(kind, []).append(one)
    found = []
    for group in sorted(kinds.values(), key=len, reverse=True):
        reasons = {str(one["reason"]) for one in group}
        first = group[0]
        one_reason = len(reasons) == 1
        words = first["reason"] if one_reason else _without_numbers(first["reason"], reasons)
        found.append(
            {
                "title": f"{_counted(len(group), 'file', 'files')}: {words}",
                "example": "" if one_reason else f"{first['path']}: {first['reason']}",
                "names": [one["path"] for one in group],
            }
        )
    return found


def _without_numbers(reason: str, reasons: set[str]) -> str:
    """A reason with "…" for each number that differs between reasons of one kind."""
    numbers = [re.findall(r"\d[\d,.]*", each) for each in reasons]
    fixed = [len(set(column)) == 1 for column in zip(*numbers, strict=False)]
    places = iter(fixed)
    return re.sub(r"\d[\d,.]*", lambda m: m.group() if next(places, False) else "…", reason)


def _groups(source: Source, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Groups of duplicates: how many, all that repeat the first of their group, the largest."""
    return {
        "count": len(groups),
        "extra": sum(len(group) - 1 for group in groups),
        "names": _files(source, [row for group in groups for row in group[1:]]),
        "groups": [[_item(source, row) for row in group[:IN_A_GROUP]] for group in groups[:GROUPS]],
    }


def _leaks(seen: Seen) -> dict[str, Any] | None:
    """Training items that repeat a test item."""
    source = seen.source
    found = duplicates.leaks(seen.copies, source.splits)
    if not found:
        return None
    pairs = [
        [_item(source, int(x["train"]), "train"), _item(source, int(x["test"]), "test")]
        for x in found[:GROUPS]
    ]
    names = _files(source, [int(x["train"]) for x in found])
    return {"count": len(found), "pairs": pairs, "names": names}


def _outliers(seen: Seen) -> dict[str, Any]:
    ranked = seen.result["outliers"]
    rows = {name: row for row, name in enumerate(seen.source.ids)}
    shown = [
        _item(seen.source, rows[x["id"]], f"{x['score']:.2f}") for x in ranked["first"][:SHOWN]
    ]
    names = _files(seen.source, [rows[x["id"]] for x in ranked["first"]])
    return {"median": ranked["median"], "shown": shown, "names": names}


def _suspects(seen: Seen) -> dict[str, Any] | None:
    """Items whose neighbours agree on another label; None without labels."""
    source = seen.source
    if source.labels is None:
        return None
    suspects = outliers.suspect_labels(source.labels, seen.near)
    classes = source.classes
    shown = [
        _item(source, x["row"], f"{classes[x['label']]}; neighbours: {classes[x['neighbours']]}")
        for x in suspects[:SHOWN]
    ]
    names = _files(source, [x["row"] for x in suspects])
    return {"count": len(suspects), "shown": shown, "names": names}


def _files(source: Source, rows: Sequence[int]) -> list[str]:
    """The files of items, each once; the ids where items are no files."""
    if not source.all_files:
        return [source.ids_at(row) for row in rows]
    return list(dict.fromkeys(str(source.file(row)) for row in rows))


def _wrong_endings(result: Mapping[str, Any]) -> dict[str, Any] | None:
    wrong = result.get("wrong_endings", {"files": 0})
    if not wrong["files"]:
        return None
    return {"count": wrong["files"], "rows": [(w["file"], w["is"]) for w in wrong["first"]]}


def _item(source: Source, row: int, note: str = "") -> dict[str, Any]:
    """An item with its file name as the caption: here names matter more than labels."""
    name = source.ids_at(row)
    caption = html.shortened(Path(name).name, html.NAME)
    return html.item(source, row, note) | {"caption": caption, "name": name}


def _counted(count: int, one: str, many: str) -> str:
    """
    >>> _counted(1, "image", "images"), _counted(2000, "image", "images")
    ('1 image', '2,000 images')
    """
    return f"{count:,} {one if count == 1 else many}"


def _listed(counts: Mapping[str, int], most: int = 8) -> str:
    shown = ", ".join(f"{name} ({n:,})" for name, n in list(counts.items())[:most])
    return shown + (f", and {len(counts) - most:,} more" if len(counts) > most else "")


def _spread(values: Mapping[str, Any]) -> str:
    if values["min"] == values["max"]:
        return f"{values['median']:,g} {values['unit']}"
    return (
        f"{values['min']:,g} to {values['max']:,g} {values['unit']}, median {values['median']:,g}"
    )


def _duplicates(counts: Mapping[str, int]) -> str:
    if not counts["groups"]:
        return "none"
    groups = _counted(counts["groups"], "group", "groups")
    return f"{counts['items']:,} items in {groups}: {counts['extra']:,} more than needed"
