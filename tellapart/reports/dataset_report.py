"""What `inspect` prints, and the page it writes: tables, and the items themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..curation.inspect import Seen
from ..data import ImageSource, SequenceSource, Source, TextSource
from ..embeddings.embeddings import replacing
from ..errors import DataError
from ..runtime.console import Console
from ..runtime.text import safe
from . import html

GROUPS, IN_A_GROUP, SHOWN, NAMED = (
    12,
    10,
    20,
    5,
)  # on the page: groups, items of each, other items; printed: names


def print_inspection(result: Mapping[str, Any], console: Console) -> None:
    """Print what was found: tables, then the verdict."""
    if console.quiet:
        return
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
    for name, said in examples(result).items():
        console.say(f"{name}: {said}")
    console.say(result["verdict"])


def write_page(seen: Seen, out: Path, console: Console) -> None:
    """Write the page of an inspection, with pictures of what it names.

    Raises:
        DataError: `out` cannot be written.
    """
    result, source = seen.result, seen.source
    training = result["training"]
    why = training["why"]
    parts = [
        html.text(f"{len(source):,} {source.many} in {result['data']}", kind="soft"),
        html.text(result["verdict"], kind="verdict"),
        *[html.text(f"Note: {warning}.") for warning in training["warnings"]],
        *[html.text(f"{note['text']}.") for note in result["notes"]],
        html.heading("What is in it"),
        html.facts(contents(result)),
        *_left_out(result),
        *_groups(
            f"The same {source.many}, nearly",
            source,
            seen.copies.near,
            "cropped, resized, compressed, reworded",
        ),
        *_groups(
            f"The same {source.many}, byte for byte", source, seen.copies.exact, "equal contents"
        ),
        *_leaks(result, source),
        *_outliers(result, source),
        *_labels(result, source),
        html.heading(f"What tellapart train {training['method']} would do"),
        html.table(
            ["", "", "why"],
            [[n, v, why.get(n.replace(" ", "_"), "")] for n, v in choices(training).items()],
        ),
        *_classes(result),
    ]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(None, "it is a folder; name a file")
        with replacing(out) as work:
            work.write_text(
                html.document(f"{result['data']}: before training", parts), encoding="utf-8"
            )
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or os.strerror(error.errno or 0)}"
        ) from error
    console.say(f"page: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def contents(result: Mapping[str, Any]) -> dict[str, str]:
    """Names and what they are."""
    counts = result["counts"]
    found = {"items": f"{counts['items']:,}", "splits": _listed(counts["splits"])}
    if counts["classes"]:
        found["classes"] = f"{len(counts['classes']):,}: {_listed(counts['classes'], 10)}"
    if counts["without_label"]:
        found["without a label"] = f"{counts['without_label']:,}"
    if sizes := result.get("sizes"):
        found["width"], found["height"] = _spread(sizes["width"]), _spread(sizes["height"])
        found["common sizes"] = ", ".join(
            f"{s['width']} x {s['height']} ({s['count']:,})" for s in sizes["common"]
        )
        view = result["view"]
        found["seen by the encoder"] = (
            f"{view['image_size']} x {view['image_size']}, {view['channels']} channel(s)"
        )
    for name in ("lengths", "characters"):
        if name in result:
            found[name] = _spread(result[name])
    if "rate" in result:
        found["read at"] = f"{result['rate']:,} Hz"
    named = {
        "channels": "channels", "columns": "sentences in a line", "rates": "rates of the files, Hz",
        "formats": "formats", "modes": "modes", "channels_of_files": "channels of the files",
    }  # fmt: skip
    for name, said in named.items():
        if result.get(name):
            found[said] = (
                _listed(result[name]) if isinstance(result[name], dict) else str(result[name])
            )
    if wrong := result.get("wrong_endings", {}).get("files"):
        found["endings that say otherwise"] = f"{wrong:,}"
    if moving := result.get("several_frames"):
        found["files of several frames"] = f"{moving:,}, of which the first is seen"
    found["left out"] = f"{result['skipped']['files']:,}"
    return found


def findings(result: Mapping[str, Any]) -> dict[str, str]:
    """What there is twice or odd, in numbers."""
    copies, risk = result["duplicates"], result["training"]["false_negatives"]
    found = {
        "exact copies": _copies(copies["exact"]),
        "near copies": _copies(copies["near"]),
        "training items in the test part": f"{copies['leaks']['items']:,} ({copies['leaks']['exact']:,} exactly)",
        "copies with several labels": f"{copies['of_several_labels']['groups']:,} group(s)",
        "copies that meet in a batch": (
            f"{risk['pairs']:.2f} pairs expected in {result['training']['batch_size']:,} items; "
            f"{risk['item'] * 100:.2f} % of its items have one"
        ),
    }
    if len(result["counts"]["splits"]) < 2:
        del found["training items in the test part"]
    if result["labels"] is None:
        del found["copies with several labels"]
    else:
        found["labels that do not fit"] = (
            f"{result['labels']['items']:,} (by neighbours in {result['neighbours_by']})"
        )
    return found


def choices(training: Mapping[str, Any]) -> dict[str, str]:
    """What a training would be."""
    kept = ("preset", "items", "image_size", "batch_size", "epochs", "steps", "encoder", "lr")
    shown = {n: training[n] for n in kept if n in training}
    return {
        n.replace("_", " "): f"{v:,}" if isinstance(v, int) else str(v) for n, v in shown.items()
    }


def examples(result: Mapping[str, Any]) -> dict[str, str]:
    """The first names under each finding."""
    copies = result["duplicates"]
    odd = (result["labels"] or {"first": []})["first"]
    found = {
        "left out": [f"{s['path']} ({s['reason']})" for s in result["skipped"]["first"]],
        "endings that say otherwise": [
            f"{w['file']} is {w['is']}" for w in result.get("wrong_endings", {}).get("first", [])
        ],
        "exact copies": [" = ".join(g[:NAMED]) for g in copies["exact"]["first"]],
        "near copies": [" ~ ".join(g[:NAMED]) for g in copies["near"]["first"]],
        "in training and test": [f"{x['train']} ~ {x['test']}" for x in copies["leaks"]["first"]],
        "farthest from the others": [x["id"] for x in result["outliers"]["first"]],
        "labels to look at": [f"{x['id']} ({x['label']}; its neighbours: {x['neighbours']})" for x in odd],
    }  # fmt: skip
    return {
        name: "; ".join(map(safe, each[:NAMED])) + ("; ..." if len(each) > NAMED else "")
        for name, each in found.items()
        if each
    }


def _listed(counts: Mapping[str, int], most: int = 8) -> str:
    said = ", ".join(f"{name} ({n:,})" for name, n in list(counts.items())[:most])
    return said + (f", and {len(counts) - most:,} more" if len(counts) > most else "")


def _spread(values: Mapping[str, Any]) -> str:
    if values["min"] == values["max"]:
        return f"{values['median']:,g} {values['unit']}"
    return f"{values['min']:,g} to {values['max']:,g} {values['unit']}, half of them up to {values['median']:,g}"


def _copies(found: Mapping[str, int]) -> str:
    if not found["groups"]:
        return "none"
    return f"{found['items']:,} items in {found['groups']:,} group(s): {found['extra']:,} more than needed"


def _left_out(result: Mapping[str, Any]) -> list[str]:
    skipped = result["skipped"]
    wrong = result.get("wrong_endings", {"files": 0})
    made = []
    if skipped["files"]:
        made += [
            html.heading("What could not be used"),
            html.table(["reason", "files"], [[r, f"{n:,}"] for r, n in skipped["reasons"].items()]),
            html.text("The first: " + ", ".join(s["path"] for s in skipped["first"]), kind="soft"),
        ]
    if wrong["files"]:
        said = "; ".join(f"{w['file']} is {w['is']}" for w in wrong["first"])
        made.append(
            html.text(
                f"{wrong['files']:,} file(s) are not what their ending says: {said}", kind="soft"
            )
        )
    return made


def _groups(title: str, source: Source, groups: Sequence[Sequence[int]], said: str) -> list[str]:
    if not groups:
        return [html.heading(title), html.text("None.")]
    more = sum(len(g) - 1 for g in groups)
    shown = [html.row([_item(source, i) for i in g[:IN_A_GROUP]]) for g in groups[:GROUPS]]
    counted = f"{len(groups):,} group(s), {more:,} item(s) more than needed ({said})"
    return [
        html.heading(title),
        html.text(counted + ("; the largest:" if len(groups) > GROUPS else ":")),
        *shown,
    ]


def _leaks(result: Mapping[str, Any], source: Source) -> list[str]:
    found = result["duplicates"]["leaks"]
    if not found["items"]:
        return []
    place = _places(source)
    said = f"{found['items']:,} training item(s), each beside the test item that it repeats: scores would flatter."
    pairs = [
        html.row(
            [_item(source, place[x["train"]], "train "), _item(source, place[x["test"]], "test ")]
        )
        for x in found["first"][:GROUPS]
    ]
    return [html.heading("In training and test"), html.text(said), *pairs]


def _outliers(result: Mapping[str, Any], source: Source) -> list[str]:
    place = _places(source)
    found = result["outliers"]
    said = (
        f"The items farthest from their ten nearest others in {result['neighbours_by']} (1 minus the mean cosine "
        f"similarity; half of all items have up to {found['median']:.2f})."
    )
    shown = [_item(source, place[x["id"]], f"{x['score']:.2f} ") for x in found["first"][:SHOWN]]
    return [html.heading("Unlike all others"), html.text(said, kind="soft"), html.row(shown)]


def _labels(result: Mapping[str, Any], source: Source) -> list[str]:
    found = result["labels"]
    if found is None:
        return []
    made = [html.heading("Labels that do not fit")]
    if not found["items"]:
        return [*made, html.text("No item has neighbours that agree on another label.")]
    place = _places(source)
    said = f"{found['items']:,} item(s) whose label is not that of four fifths of their neighbours, worth a look:"
    shown = [
        _item(source, place[x["id"]], f"{x['label']}, not {x['neighbours']}? ")
        for x in found["first"][:SHOWN]
    ]
    return [*made, html.text(said), html.row(shown)]


def _classes(result: Mapping[str, Any]) -> list[str]:
    classes = result["counts"]["classes"]
    if not classes:
        return []
    return [
        html.heading("Classes"),
        html.table(["class", "items"], [[n, f"{c:,}"] for n, c in classes.items()]),
    ]


def _places(source: Source) -> dict[str, int]:
    return {name: i for i, name in enumerate(source.ids)}


def _item(source: Source, position: int, before: str = "") -> str:
    """A picture with the end of its name, or a sentence, or a name."""
    name = source.ids_at(position)
    if isinstance(source, ImageSource):
        return html.figure(source.image(position), before + "/".join(Path(name).parts[-2:]))
    if isinstance(source, TextSource):
        words = " | ".join(source.texts[source.rows[position]])
        return html.figure(
            None, f"{before}{name}: {words if len(words) < 80 else words[:79] + '…'}"
        )
    if isinstance(source, SequenceSource):
        length = int(source.lengths[position])
        return html.figure(
            None,
            f"{before}{name}, {length / source.rate:.2f} s" if source.rate else f"{before}{name}",
        )
    return html.figure(None, before + name)
