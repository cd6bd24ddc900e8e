"""Self-contained HTML pages: Jinja2 templates, with pictures and curves inside the file.

The pages need no script and no network. Templates stand in `templates/`; every value is escaped
by Jinja2 and passes `runtime.text.safe`.
"""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..data import Source, modality_of
from ..errors import DataError
from ..runtime import files
from ..runtime.console import Console
from ..runtime.text import safe

Array = np.ndarray[Any, Any]
SIDE = 160  # longest side of a picture in a page, pixels
SMALL = 64  # pictures up to this side are enlarged without smoothing
LETTERS = 160  # of a sentence in a page
NAME = 36  # letters of a caption
WIDTH, HEIGHT, LEFT, RIGHT, TOP, LOW = 640, 220, 78, 530, 20, 190  # of a chart, in SVG units


def write(out: Path, template: str, values: Mapping[str, Any], console: Console) -> int:
    """Write a page.

    Args:
        out: the file.
        template: the name of a template, "run_report.html" or "dataset_report.html".
        values: what the template shows.
        console: told where the page is.

    Returns:
        Its size in bytes.

    Raises:
        DataError: the file cannot be written.
    """
    page = environment().get_template(template).render(values)
    files.write_text(out, page, error=DataError)
    size = out.stat().st_size
    console.say(f"page: {out} ({size / 1e6:.1f} MB)")
    return size


@functools.cache
def environment() -> Environment:
    """The templates, with automatic escaping and no undefined names."""
    templates = Environment(
        loader=PackageLoader(__package__, "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    templates.filters["numeric"] = _numeric
    return templates


def item(source: Source, row: int, note: str = "", *, query: bool = False) -> dict[str, Any]:
    """One item as the templates show it: a picture or words, a short caption, the full name.

    Args:
        source: the items.
        row: the source row of the item.
        note: what stands before the caption, such as a similarity.
        query: whether the item is the one that the others were found for.
    """
    name = source.ids_at(row)
    label = -1 if source.labels is None else int(source.labels[row])
    known = 0 <= label < len(source.classes)
    shown: dict[str, Any] = {
        "name": f"{name} ({source.classes[label]})" if known else name,
        "caption": shortened(str(source.classes[label]) if known else PurePath(name).name, NAME),
        "note": note, "query": query, "image": None, "small": False, "words": "",
    }  # fmt: skip
    preview = modality_of(source).preview(source, row)
    shown["words"] = shortened(preview.words or preview.detail, LETTERS)
    if preview.picture is not None:
        image = preview.picture
        shown |= {"image": data_uri(image), "small": max(image.shape[:2]) <= SMALL}
    return shown


def shortened(text: str, most: int) -> str:
    """A text of at most `most` letters, with its middle left out.

    >>> shortened("a-very-long-name.png", 12)
    'a-very…e.png'
    """
    if len(text) <= most:
        return text
    first = most // 2
    return text[:first] + "…" + text[len(text) - (most - first - 1) :]


def thumbnail(image: Array, side: int = SIDE) -> bytes:
    """An image (h, w, C) uint8 as a PNG of at most `side` pixels; smaller ones keep their size."""
    return _encoded(_picture(image, side), "PNG")


def data_uri(image: Array, side: int = SIDE) -> str:
    """An image (h, w, C) uint8 of at most `side` pixels as a data URI: PNG, or a smaller JPEG."""
    picture = _picture(image, side)
    kind, raw = "png", _encoded(picture, "PNG", optimize=True)
    if len(raw) > 8192:  # a photograph
        jpeg = _encoded(picture, "JPEG", quality=88)
        kind, raw = ("jpeg", jpeg) if len(jpeg) < len(raw) / 2 else (kind, raw)
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def chart(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    level: tuple[str, float] | None = None,
) -> dict[str, Any]:
    """Curves over steps, as the macro `chart` draws them.

    Args:
        title: what is drawn.
        lines: name -> (step, value) pairs; values that are not finite are left out.
        level: a name and a value for a dashed horizontal line, such as the chance level.
    """
    good = {
        name: [p for p in line if all(map(math.isfinite, p))][:: max(1, len(line) // 1200)]
        for name, line in lines.items()
    }
    good = {name: line for name, line in good.items() if line}
    drawing: dict[str, Any] = {
        "title": title, "name": ", ".join(lines), "width": WIDTH, "height": HEIGHT, "left": LEFT,
        "right": RIGHT, "lines": [], "labels": [], "level": None,
    }  # fmt: skip
    if not good:
        return drawing
    points = [p for line in good.values() for p in line]
    xs, ys = [p[0] for p in points], [p[1] for p in points] + ([level[1]] if level else [])
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def across(x: float) -> float:
        return round(LEFT + (x - x0) / ((x1 - x0) or 1) * (RIGHT - LEFT), 1)

    def down(y: float) -> float:
        return round(LOW - (y - y0) / ((y1 - y0) or 1) * (LOW - TOP), 1)

    def label(x: float, y: float, text: str, anchor: str = "start") -> None:
        drawing["labels"].append({"x": x, "y": y, "text": text, "anchor": anchor})

    for y in dict.fromkeys((y0, y1)):
        label(LEFT - 6, down(y) + 4, f"{y:.2g}" if abs(y) < 0.01 else f"{y:.3g}", "end")
    for x in dict.fromkeys((x0, x1)):
        label(across(x), LOW + 18, f"{x:,.0f}", "middle")
    for name, line in good.items():
        drawing["lines"].append(" ".join(f"{across(x)},{down(y)}" for x, y in line))
        label(across(line[-1][0]) + 6, down(line[-1][1]) + 4, name.replace("_", " "))
    if level:
        drawing["level"] = down(level[1])
        label(RIGHT + 6, down(level[1]) + 4, level[0])
    return drawing


def _picture(image: Array, side: int) -> Image.Image:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3])
    picture.thumbnail((side, side))
    return picture


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    memory = io.BytesIO()
    picture.save(memory, kind, **options)
    return memory.getvalue()


def _shown(value: Any) -> Any:
    """The printed form of a value: no control characters; markup is escaped after this."""
    return value if isinstance(value, Markup) else safe(value, lines=True)


def _numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether every cell of a column reads as a number, "-" or nothing."""
    return bool(rows) and all(_is_number(row[column]) for row in rows)


def _is_number(value: Any) -> bool:
    text = str(value).replace(",", "").replace("%", "")
    try:
        return bool([float(part.rstrip("*^v ")) for part in text.split("±")])
    except ValueError:
        return value in ("", "-")
