"""Near duplicates among clip art: recall by kind of copy, and look-alikes that are told apart.

The labelled set is made from Debian's openclipart-png: 1,000 pictures, nine changed copies of
each, and for each picture another one of the same folder that merely looks alike (the nearest by
its small copy; the same theme, another symbol). Pairs of one picture under two names, found by
looking at every pair that any method called a duplicate, are listed in SAME and left out.

Thresholds are chosen on the first half of the pictures, at the best F1 over all pairs, and
measured on the second half. Beside it stands the PHash of imagededup, its threshold chosen alike.
Its CNN needs weights from the network and cannot be run offline.

    python benchmarks/duplicates.py          # needs openclipart-png and `pip install imagededup`
    python benchmarks/duplicates.py --sheet pairs.png       # look at the pairs called duplicates
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tellapart.curation import image_match
from tellapart.curation.content import Contents, contents
from tellapart.data import ImageSource, open_source

ROOT = Path("/usr/share/openclipart/png")
PICTURES, SIDE = 1000, 400  # pixels: the longest side of the originals
SAME: frozenset[tuple[str, str]] = frozenset()
Picture = Image.Image
Change = Callable[[Picture, np.random.Generator], Picture]


def resized(picture: Picture, random: np.random.Generator) -> Picture:
    """Half to 1.6 times the size."""
    scale = float(random.choice([random.uniform(0.5, 0.9), random.uniform(1.2, 1.6)]))
    w, h = picture.size
    return picture.resize((max(8, round(w * scale)), max(8, round(h * scale))))


def recompressed(picture: Picture, random: np.random.Generator) -> Picture:
    """JPEG of quality 30 to 70."""
    room = io.BytesIO()
    picture.save(room, "JPEG", quality=int(random.integers(30, 71)))
    return Image.open(room).convert("RGB")


def cropped(picture: Picture, random: np.random.Generator) -> Picture:
    """Up to 10 % cut off at each edge."""
    w, h = picture.size
    left, top, right, bottom = (int(v) for v in random.uniform(0.02, 0.1, 4) * (w, h, w, h))
    return picture.crop((left, top, w - right, h - bottom))


def bordered(picture: Picture, random: np.random.Generator) -> Picture:
    """A border of one colour, 3 to 12 % of the size."""
    width = max(2, int(random.uniform(0.03, 0.12) * min(picture.size)))
    return ImageOps.expand(picture, width, tuple(int(v) for v in random.integers(0, 256, 3)))


def mirrored(picture: Picture, random: np.random.Generator) -> Picture:
    """Left and right exchanged."""
    return ImageOps.mirror(picture)


def turned(picture: Picture, random: np.random.Generator) -> Picture:
    """A quarter, half or three quarters of a turn."""
    return picture.rotate(90 * int(random.integers(1, 4)), expand=True)


def gray(picture: Picture, random: np.random.Generator) -> Picture:
    """Without colour."""
    return picture.convert("L").convert("RGB")


def brightened(picture: Picture, random: np.random.Generator) -> Picture:
    """Brightness times 0.7 to 0.85 or 1.15 to 1.3."""
    scale = random.choice([random.uniform(0.7, 0.85), random.uniform(1.15, 1.3)])
    return ImageEnhance.Brightness(picture).enhance(float(scale))


def overlaid(picture: Picture, random: np.random.Generator) -> Picture:
    """A line of text, an eighth of the height, at a random place."""
    copy = picture.copy()
    w, h = copy.size
    draw = ImageDraw.Draw(copy)
    place = (float(random.uniform(0, 0.5) * w), float(random.uniform(0, 0.85) * h))
    colour = tuple(int(v) for v in random.integers(0, 256, 3))
    draw.text(place, "sample 2026", fill=colour, font_size=max(8, h // 8))
    return copy


CHANGES: dict[str, Change] = {
    f.__name__: f
    for f in (
        resized, recompressed, cropped, bordered, mirrored, turned, gray, brightened, overlaid,
    )
}  # fmt: skip


def originals() -> tuple[list[Path], list[Path]]:
    """1,000 pictures drawn by a seed, and a look-alike of each from its folder.

    Left out are exact duplicates, and look-alikes whose names differ in numbers and letters of a
    series only: they are often one picture.
    """
    source = open_source(str(ROOT), image_size=64)
    if not isinstance(source, ImageSource):
        raise SystemExit(f"{ROOT} does not hold images")
    found = contents(source)
    vectors = image_match.vectors(found)
    usable = found.usable[len(source) : 2 * len(source)].numpy()
    folders = np.array([str(Path(i).parent) for i in source.ids])
    stems = np.array([re.sub(r"(_[a-z]|[\d_]+)+$", "", Path(i).stem) for i in source.ids])
    seen: set[str] = set()
    first, second = [], []
    for row in np.random.default_rng(0).permutation(len(source)):
        if source.hashes[row] in seen or not usable[row] or len(first) == PICTURES:
            continue
        others = np.flatnonzero((folders == folders[row]) & usable & (stems != stems[row]))
        others = others[[source.hashes[o] != source.hashes[row] for o in others]]
        if not len(others):
            continue
        near = others[int((vectors[others] @ vectors[row]).argmax())]
        if source.hashes[near] in seen:
            continue
        seen |= {source.hashes[row], source.hashes[near]}
        first.append(ROOT / source.ids[row])
        second.append(ROOT / source.ids[near])
    return first, second


def flat(path: Path) -> Picture:
    """A picture on white, at most SIDE pixels a side."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
        picture.thumbnail((SIDE, SIDE))
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")


def measured(folder: Path, kind: str) -> dict[str, Any]:
    """Residuals of every (original, copy) pair among the candidates of a set with one kind.

    Returns:
        position of the original -> (whole, covered, of_detail, busy) of each comparison.
    """
    source = open_source(str(folder), image_size=64)
    assert isinstance(source, ImageSource)
    found: Contents = contents(source)
    pairs, turns = image_match._candidates(found)
    left = image_match.residuals(found, pairs, turns)
    values = torch.stack([left.whole, left.covered, left.of_detail, left.busy], 1)
    names = [Path(i).stem for i in source.ids]
    result: dict[str, list[list[float]]] = {}
    for (a, b), row in zip((pairs % found.images).tolist(), values.tolist(), strict=True):
        one, other = sorted((names[a], names[b]), key=lambda n: n[0] != "o")
        if one[0] == "o" and other[1:] == one[1:] and np.isfinite(row[0]):
            result.setdefault(f"{one[1:]} {other[0]}", []).append(row)
    return {"kind": kind, "found": result}


def phash_distances(folder: Path) -> dict[str, int]:
    """Hamming distance of imagededup's PHash of every pair."""
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)
    hashes = {p.stem: hasher.encode_image(image_file=str(p)) for p in folder.iterdir()}
    return {
        f"{name[1:]} {other}": hasher.hamming_distance(hashes[name], hashes[f"{other}{name[1:]}"])
        for name in hashes
        for other in ("c", "l")
        if name[0] == "o" and f"{other}{name[1:]}" in hashes
    }


def collected(work: Path) -> dict[str, Any]:
    """Make the sets, one kind of copy each, and measure all pairs."""
    first, second = originals()
    raw: dict[str, Any] = {"pairs": [(str(a), str(b)) for a, b in zip(first, second, strict=True)]}
    plain = work / "plain"
    plain.mkdir()
    for name, paths in (("o", first), ("l", second)):
        for i, path in enumerate(paths):
            flat(path).save(plain / f"{name}{i:04d}.png", compress_level=1)
    for number, (kind, change) in enumerate(CHANGES.items()):
        folder = work / kind
        folder.mkdir()
        for file in plain.iterdir():
            (folder / file.name).hardlink_to(file)
        for i in range(len(first)):
            with Image.open(plain / f"o{i:04d}.png") as picture:
                copy = change(picture, np.random.default_rng([number, i]))
                copy.save(folder / f"c{i:04d}.png", compress_level=1)
        raw[kind] = measured(folder, kind)["found"]
        try:
            raw[f"{kind} phash"] = phash_distances(folder)
        except ImportError:
            raise SystemExit("pip install imagededup") from None
        print(kind, flush=True)
    return raw


def ours(rows: list[list[float]], limits: tuple[float, float, float, float]) -> bool:
    """Whether any comparison of a pair passes the limits, as `image_match.is_duplicate`."""
    limit, covered, busy, of_detail = limits
    return any(
        (w <= limit or (c <= covered and b >= busy)) and d <= of_detail for w, c, d, b in rows
    )


def rates(raw: dict[str, Any], says: Callable[[str, str], bool], half: int) -> dict[str, float]:
    """Recall of each kind and precision over all pairs, on one half of the pictures."""
    wanted = [i for i in range(len(raw["pairs"])) if i % 2 == half]
    out = {k: float(np.mean([says(k, f"{i:04d} c") for i in wanted])) for k in CHANGES}
    same = [i for i in wanted if tuple(Path(p).name for p in raw["pairs"][i]) in SAME]
    alike = [i for i in wanted if i not in same]
    wrong = float(np.mean([says("mirrored", f"{i:04d} l") for i in alike]))
    right = float(np.mean(list(out.values())))
    for k in CHANGES:
        out[f"{k} precision"] = out[k] / max(1e-9, out[k] + wrong)
    return out | {"recall": right, "false": wrong, "precision": right / max(1e-9, right + wrong)}


def f1(found: dict[str, float]) -> float:
    """Harmonic mean of recall and precision."""
    return 2 * found["recall"] * found["precision"] / (found["recall"] + found["precision"] + 1e-9)


def chosen(raw: dict[str, Any]) -> tuple[tuple[float, float, float, float], int]:
    """Our limits and the PHash distance of best F1 on the first half."""
    best: tuple[float, Any] = (-1.0, None)
    for limit in (0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.4):
        for covered in (0.0, 0.2, 0.3, 0.4, 0.6, 0.8):
            for busy in (0.5, 0.8) if covered else (0.8,):
                for detail in (0.08, 0.12, 0.16, 0.2, 0.25, 0.35):
                    limits = (limit, covered, busy, detail)
                    score = f1(rates(raw, _says(raw, limits), 0))
                    best = max(best, (score, limits), key=lambda one: one[0])
    distance = max(range(0, 21), key=lambda d: f1(rates(raw, _phash(raw, d), 0)))
    return best[1], distance


def _says(
    raw: dict[str, Any], limits: tuple[float, float, float, float]
) -> Callable[[str, str], bool]:
    return lambda kind, pair: ours(raw[kind].get(pair, []), limits)


def _phash(raw: dict[str, Any], distance: int) -> Callable[[str, str], bool]:
    return lambda kind, pair: raw[f"{kind} phash"].get(pair, 99) <= distance


def sheet(raw: dict[str, Any], limits: tuple[float, float, float, float], path: Path) -> None:
    """Draw every look-alike pair that the limits call a duplicate."""
    says = _says(raw, limits)
    shown = [i for i in range(len(raw["pairs"])) if any(says(k, f"{i:04d} l") for k in CHANGES)]
    picture = Image.new("RGB", (8 * 220, max(1, -(-len(shown) // 8)) * 130), "gray")
    for place, i in enumerate(shown):
        for side, name in enumerate(raw["pairs"][i]):
            one = flat(Path(name))
            one.thumbnail((105, 105))
            picture.paste(one, (place % 8 * 220 + side * 107, place // 8 * 130))
        print(place, *(Path(n).name for n in raw["pairs"][i]))
    picture.save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--raw", type=Path, help="keep or read the measured pairs here (torch)")
    args = parser.parse_args()
    if args.raw and args.raw.exists():
        raw = torch.load(args.raw, weights_only=True)
    else:
        with tempfile.TemporaryDirectory() as work:
            raw = collected(Path(work))
        if args.raw:
            torch.save(raw, args.raw)
    limits, distance = chosen(raw)
    shipped = (
        image_match.LIMIT, image_match.LIMIT_COVERED, image_match.BUSY, image_match.OF_DETAIL,
    )  # fmt: skip
    if args.sheet:
        sheet(raw, limits, args.sheet)
    rounded = {
        name: {k: round(100 * v, 1) for k, v in rates(raw, says, 1).items()}
        for name, says in (
            ("tellapart", _says(raw, limits)),
            ("tellapart, limits of the package", _says(raw, shipped)),
            ("imagededup PHash", _phash(raw, distance)),
        )
    }
    about = {
        "pictures": len(raw["pairs"]),
        "limits chosen on the first half": limits,
        "limits of the package": shipped,
        "PHash distance": distance,
        "look-alikes left out as one picture": len(SAME),
        "columns": "recall by kind, precision, share of look-alikes called duplicates, in %, on "
        "the second half",
    }
    write("duplicates", about | rounded)
