"""The parts of a self-contained HTML page: tables, pictures and curves inside the file, no script, no network."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --line: #d5dae0; --back: #fff; --mark: #0b6bcb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b1; --line: #343b45; --back: #14171b; --mark: #6cb2ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif;
       color: var(--ink); background: var(--back); }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; } h2 { margin: 2.2rem 0 .5rem; font-size: 1.2rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.verdict { border-left: 4px solid var(--mark); padding: .3rem .9rem; font-size: 1.05rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin: .4rem 0; align-items: flex-start; }
figure { margin: 0; width: 76px; } figure img { display: block; width: 72px; height: 72px; object-fit: contain;
       image-rendering: auto; background: #8881; } figcaption { font-size: .7rem; color: var(--soft);
       overflow-wrap: anywhere; line-height: 1.25; } .query { border-right: 2px solid var(--line); margin-right: 6px; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } h2, table, figure, svg { break-inside: avoid; } }
"""
COLOURS = ("#0b6bcb", "#c2571a", "#2c8a4b", "#8b4bb8")


def document(title: str, parts: Sequence[str]) -> str:
    """The whole page."""
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{name}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def text(words: str, *, kind: str = "") -> str:
    """A paragraph; kind: "", "soft" (an aside) or "verdict"."""
    return f'<p class="{kind}">{html.escape(words)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers stand to the right."""

    def cell(value: Any, tag: str, numeric: bool) -> str:
        return f"<{tag}{' class=number' if numeric else ''}>{html.escape(str(value))}</{tag}>"

    numeric = [
        bool(rows) and all(_reads_as_number(row[c]) for row in rows) for c in range(len(heads))
    ]
    top = "".join(cell(h, "th", n) for h, n in zip(heads, numeric, strict=True))
    body = "".join(
        "<tr>" + "".join(cell(v, "td", n) for v, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def facts(values: Mapping[str, Any]) -> str:
    """Names and what they are, a row each."""
    return table(("", ""), [(name, value) for name, value in values.items()])


def thumbnail(image: Array, side: int = 72) -> bytes:
    """An image (h, w, C) uint8 as a PNG of at most `side` pixels; small ones keep their own size."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3])
    picture.thumbnail((side, side))
    room = io.BytesIO()
    picture.save(room, "PNG")
    return room.getvalue()


def figure(image: Array | None, caption: str = "", *, kind: str = "") -> str:
    """A thumbnail with a line under it; without an image the line alone. kind: "" or "query"."""
    said = html.escape(caption)
    if image is None:
        return f'<figure class="{kind}"><figcaption>{said}</figcaption></figure>'
    data = base64.b64encode(thumbnail(image)).decode()
    return (
        f'<figure class="{kind}"><img alt="{said}" src="data:image/png;base64,{data}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def row(figures: Sequence[str]) -> str:
    """Figures beside one another."""
    return f'<div class="row">{"".join(figures)}</div>'


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, level: tuple[str, float] | None = None
) -> str:
    """Curves over steps as inline SVG; level: a name and a value drawn as a dashed line (chance)."""
    points = [p for line in lines.values() for p in line if all(map(math.isfinite, p))]
    if not points:
        return text("no points were logged", kind="soft")
    width, height, left, low = 640, 220, 56, 190
    xs, ys = [p[0] for p in points], [p[1] for p in points] + ([level[1]] if level else [])
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)

    def at(x: float, y: float) -> str:
        across = left + (x - x0) / ((x1 - x0) or 1) * (width - left - 110)
        return f"{across:.1f},{low - (y - y0) / ((y1 - y0) or 1) * (low - 20):.1f}"

    made = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{html.escape(", ".join(lines))}">'
    ]
    made += [
        f'<text x="{left - 6}" y="{float(at(x0, y).split(",")[1]) + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        for y in (y0, y1)
    ]
    made += [
        f'<text x="{at(x, y0).split(",")[0]}" y="{low + 18}" text-anchor="middle">{x:,.0f}</text>'
        for x in (x0, x1)
    ]
    for (name, line), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
        good = [p for p in line if all(map(math.isfinite, p))]
        if good:
            ends = at(*good[-1]).split(",")
            path = " ".join(at(*p) for p in good)
            made.append(
                f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'
            )
            made.append(
                f'<text x="{float(ends[0]) + 6:.1f}" y="{float(ends[1]) + 4:.1f}">{html.escape(name)}</text>'
            )
    if level:
        (ax, ay), (bx, _) = at(x0, level[1]).split(","), at(x1, level[1]).split(",")
        made.append(
            f'<line x1="{ax}" y1="{ay}" x2="{bx}" y2="{ay}" stroke="#888" stroke-dasharray="5 4"/>'
        )
        made.append(
            f'<text x="{float(bx) + 6:.1f}" y="{float(ay) + 4:.1f}">{html.escape(level[0])}</text>'
        )
    return "".join(made) + "</svg>"


def _reads_as_number(value: Any) -> bool:
    words = str(value).replace(",", "").replace("%", "").split("±")
    try:
        return bool([float(w) for w in words])
    except ValueError:
        return value in ("", "-")
