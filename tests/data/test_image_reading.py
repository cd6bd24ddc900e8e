"""Pictures as they are read: formats, ranges of values, grounds, long ones, drafts, memory."""

from __future__ import annotations

import ast
import io
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFile, TiffImagePlugin
from sklearn.datasets import load_sample_images

from tellapart.curation.inspect import inspect_source
from tellapart.data import image_decoding, image_folder, open_source
from tellapart.data.bounded import in_order
from tellapart.data.image_decoding import choose_range, decode_image, open_picture
from tellapart.embeddings.search import image_query
from tellapart.errors import ConfigError, DataError
from tellapart.runtime.console import Console
from tellapart.views import evaluation_view

ROOT = Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(0)
GRADIENT = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def noted(source, kind):
    return next((n for n in source.notes if n["kind"] == kind), None)


# formats ------------------------------------------------------------------------------------------


def test_every_picture_of_the_package_is_opened_by_one_function():
    """No call of Pillow's own `open`, which tries every reader it has."""
    for file in (ROOT / "tellapart").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called != "Image.open", f"{file}:{node.lineno}"


@pytest.mark.parametrize(
    "raw",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n{ } loop\n",
     b"\xc5\xd0\xd3\xc6" + bytes(100), b"8BPS\0\1" + bytes(60), b"%PDF-1.7\n" + bytes(50),
     b"\xd7\xcd\xc6\x9a" + bytes(60), b"icns" + bytes(60), b"GRIB" + bytes(60),
     b"SIMPLE  =" + bytes(90),
     b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\1\xba" + bytes(60),
     b"\n\5\1\10" + bytes(200)],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_other_formats_are_listed_and_no_program_is_started(photos, monkeypatch, raw, ending):
    def start(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    (photos / f"x.{ending}").write_bytes(raw)
    source = open_source(str(photos))
    assert len(source) == 24
    assert source.skipped[0]["reason"].startswith("not an image")


def test_whatever_a_reader_raises_leaves_out_that_file_alone(photos, monkeypatch):
    kinds = [struct.error("x"), TypeError("y"), MemoryError(), RecursionError("z"), KeyError("k")]
    whole = image_decoding._flat
    paths = {}

    def failing(picture, *rest):
        if picture.size in paths:
            raise paths[picture.size]
        return whole(picture, *rest)

    for i, error in enumerate(kinds):
        paths[(100 + i, 7)] = error
        Image.new("RGB", (100 + i, 7)).save(photos / f"bad{i}.png")
    monkeypatch.setattr(image_decoding, "_flat", failing)
    source = open_source(str(photos))
    assert (len(source), len(source.skipped)) == (24, 5)
    assert {s["path"] for s in source.skipped} == {f"bad{i}.png" for i in range(5)}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_damaged_files_are_listed(photos, cut):
    for i, file in enumerate(sorted((photos / "red").glob("*.png"))[:4]):
        raw = bytearray(file.read_bytes())
        raw[cut + i] ^= 0xFF
        (photos / "red" / f"bad{i}.png").write_bytes(bytes(raw))
    source = open_source(str(photos))
    assert len(source) + len(source.skipped) == 28
    assert len(source) >= 24


def test_exif_that_cannot_be_read_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x112], exif[0x10E] = 6, "x" * 40
    room = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(room, "JPEG", exif=exif)
    raw = bytearray(room.getvalue())
    start = raw.find(b"MM\0*") if b"MM\0*" in raw else raw.find(b"II*\0")
    for place in range(start + 8, start + 40):
        damaged = bytearray(raw)
        damaged[place] ^= 0xFF
        decoded = decode_image(io.BytesIO(bytes(damaged)), 3, short=10)
        assert decoded.image.shape[2] == 3


# every header -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 5, 1234, 2100])
def test_one_colour_picture_anywhere_makes_three_channels(tmp_path, place):
    gray = Image.fromarray(RANDOM.integers(0, 256, (12, 12), np.uint8))
    gray.save(tmp_path / "first.png")
    raw = (tmp_path / "first.png").read_bytes()
    for i in range(2101):
        (tmp_path / f"{i:05d}.png").write_bytes(raw)
    (tmp_path / "first.png").unlink()
    Image.new("RGB", (12, 12), "red").save(tmp_path / f"{place:05d}.png")
    source = open_source(str(tmp_path))
    assert source.channels == 3
    row = source.ids.index(f"{place:05d}.png")
    assert source.image(row)[0, 0].tolist() == [255, 0, 0]


def test_one_large_picture_anywhere_ends_equal_sizes(tmp_path):
    for i in range(30):
        Image.new("L", (16, 16), i).save(tmp_path / f"{i}.png")
    Image.new("L", (300, 400), 3).save(tmp_path / "7.png")
    source = open_source(str(tmp_path))
    assert source.pixels.height.max() < 100


# ranges -------------------------------------------------------------------------------------------

VALUES = {
    "12 bits in 16": (GRADIENT * 4095).astype(np.uint16),
    "10 bits in 16": (GRADIENT * 1023).astype(np.uint16),
    "16 bits": (GRADIENT * 65535).astype(np.uint16),
    "8 bits in 16": (GRADIENT * 255).astype(np.uint16),
    "thermal": (27000 + GRADIENT * 4000).astype(np.uint16),
    "0..1": GRADIENT.astype(np.float32),
    "-1..1": (GRADIENT * 2 - 1).astype(np.float32),
    "0..255 floats": (GRADIENT * 255).astype(np.float32),
    "metres": (GRADIENT * 8000 - 300).astype(np.float32),
    "Hounsfield": (GRADIENT * 4095 - 1024).astype(np.int32),
    "32 bits": (GRADIENT * 1e9).astype(np.int32),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_any_range_of_values_fills_the_grey_levels(tmp_path, values):
    for i in range(3):
        Image.fromarray(np.roll(values, i, 0)).save(tmp_path / f"{i}.tif")
    source = open_source(str(tmp_path), image_size=32)
    assert not source.skipped
    grey = source.image(0)[:, :, 0].astype(float)
    assert np.abs(grey / 255 - GRADIENT).max() < 0.02
    assert any(n["kind"].endswith("values") and "--range" in n["text"] for n in source.notes)
    assert source.about["ranges"]


@pytest.mark.parametrize(
    "kind", ["signed 16", "unsigned 32 above 2^31", "float64", "white is zero", "big endian"]
)
def test_sample_types_of_tiff(tmp_path, kind):
    form, code, bits, photometric, order = {
        "signed 16": (2, "h", 16, 1, "<"),
        "unsigned 32 above 2^31": (1, "I", 32, 1, "<"),
        "float64": (3, "d", 64, 1, "<"),
        "white is zero": (1, "H", 16, 0, "<"),
        "big endian": (1, "H", 16, 1, ">"),
    }[kind]
    top = {"signed 16": (-1024, 3071), "unsigned 32 above 2^31": (0, 4e9), "float64": (0.0, 1.0)}
    low, high = top.get(kind, (0, 65535))
    values = (low + GRADIENT * (high - low)).astype(np.dtype(order + code))
    for i in range(2):
        write_tiff(tmp_path / f"{i}.tif", values, bits, form, photometric, order)
    if kind == "float64":  # Pillow has no reader for it: listed, never garbage
        with pytest.raises(DataError, match=r"0 usable images.*damaged"):
            open_source(str(tmp_path))
        return
    grey = open_source(str(tmp_path), image_size=32).image(0)[:, :, 0] / 255
    wanted = 1 - GRADIENT if kind == "white is zero" else GRADIENT
    assert np.abs(grey - wanted).max() < 0.02


def write_tiff(path, values, bits, form, photometric, order):
    """A TIFF of one strip, by hand: Pillow writes none of these."""
    h, w = values.shape
    tags = [(256, 4, w), (257, 4, h), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 0), (277, 3, 1), (278, 4, h), (279, 4, values.nbytes), (339, 3,
                form)]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    body = b"II*\0" if order == "<" else b"MM\0*"
    body += struct.pack(order + "IH", 8, len(tags))
    for tag, kind, value in tags:
        value = start if tag == 273 else value
        packed = struct.pack(
            order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value])
        )
        body += struct.pack(order + "HHI", tag, kind, 1) + packed
    path.write_bytes(body + bytes(4) + values.tobytes())


def test_the_range_is_that_of_the_folder_and_can_be_set(tmp_path):
    for i, top in enumerate((500, 4000)):
        Image.fromarray((GRADIENT * top).astype(np.uint16)).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path), image_size=32)
    assert [int(source.image(i).max()) for i in range(2)] == [31, 249]
    given = open_source(str(tmp_path), image_size=32, range=(0, 500))
    assert [int(given.image(i).max()) for i in range(2)] == [255, 255]
    query = image_query(tmp_path / "0.png", source)  # a query is scaled as the folder is
    assert int(query.max()) == 31
    with pytest.raises(ConfigError, match="--range"):
        open_source(str(tmp_path), range=(5, 5))


def test_a_range_without_deep_pictures_is_an_error(photos):
    with pytest.raises(DataError, match="more than 8 bits"):
        open_source(str(photos), range=(0, 100))


def test_no_data_and_values_that_are_not_finite(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = "-9999"
    for i in range(2):
        values = (GRADIENT * 100).astype(np.float32)
        values[0] = -9999
        values[1] = np.nan
        Image.fromarray(values).save(tmp_path / f"{i}.tif", tiffinfo=tags)
    grey = open_source(str(tmp_path), image_size=32).image(0)[:, :, 0].astype(float)
    assert not grey[:2].any()
    assert grey.max() > 90


@pytest.mark.parametrize(
    ("kind", "low", "high", "wanted"),
    [("16-bit", 0, 200, (0, 255)), ("16-bit", 0, 1023, (0, 1023)), ("16-bit", 5, 5, (0, 255)),
     ("16-bit", 40_000, 40_000, (0, 65_535)), ("32-bit", 0, 10**9, (0, 1e9)), ("float", 0, 0, (0,
         1)),
     ("float", -0.9, 1, (-1, 1)), ("float", 0.5, 0.51, (0.5, 0.51)), ("float", -5, 900, (-5, 900))],
)  # fmt: skip
def test_the_range_is_chosen_by_type_and_values(kind, low, high, wanted):
    assert choose_range(kind, low, high) == wanted


def write_png16(path, values, *, interlaced=False, clear=None):
    """A PNG of 16 bits in 2 (grey, alpha), 3 or 4 channels, by hand: Pillow writes none of these.

    Every second row has the filter "Sub", whose differences run over bytes.
    """
    h, w, c = values.shape
    kind = {2: 4, 3: 2, 4: 6}[c]

    def rows(part):
        raw = part.astype(">u2").reshape(len(part), -1).view(np.uint8)
        out = b""
        for i, line in enumerate(raw):
            before = np.concatenate([np.zeros(2 * c, np.uint8), line[: -2 * c]])
            out += (b"\1" + (line - before).tobytes()) if i % 2 else b"\0" + line.tobytes()
        return out

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    parts = [values[a::p, b::q] for a, b, p, q in passes] if interlaced else [values]
    data = b"".join(rows(np.ascontiguousarray(part)) for part in parts if part.size)

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, kind, 0, 0, int(interlaced)))
        + (chunk(b"tRNS", struct.pack(">HHH", *clear)) if clear else b"")
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


COLOUR_FILES = [
    "png", "interlaced png", "tiff", "big endian tiff", "deflate tiff", "big endian deflate tiff",
    "planar tiff", "ppm", "ppm in words",
]  # fmt: skip


def write_colour(path, values, form):
    """A picture of 16 bits in each of 3 or 4 channels."""
    if "png" in form:
        return write_png16(path.with_suffix(".png"), values, interlaced="interlaced" in form)
    if "ppm" in form:
        words = b"# of a camera\n" + b" ".join(b"%d" % v for v in values.flatten().tolist())
        kind, body = (b"P3", words) if "words" in form else (b"P6", values.astype(">u2").tobytes())
        height, width, _ = values.shape
        path.with_suffix(".ppm").write_bytes(b"%s\n%d %d\n65535\n" % (kind, width, height) + body)
        return None
    order = ">" if "big" in form else "<"
    raw = values.astype(f"{order}u2")
    if "planar" in form:
        raw = np.ascontiguousarray(raw.transpose(2, 0, 1))
    body = zlib.compress(raw.tobytes()) if "deflate" in form else raw.tobytes()
    h, w, c = values.shape
    planes = c if "planar" in form else 1
    start = 8 + 2 + 12 * (12 if c == 4 else 11) + 4
    lists = start + 2 * c
    place = lists + 8 * planes
    size = len(body) // planes
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, c, start),
            (259, 3, 1, 8 if "deflate" in form else 1), (262, 3, 1, 2),
            (273, 4, planes, lists if planes > 1 else place), (277, 3, 1, c), (278, 4, 1, h),
            (279, 4, planes, lists + 4 * planes if planes > 1 else size),
            (284, 3, 1, 2 if planes > 1 else 1), (339, 3, 1, 1)]  # fmt: skip
    if c == 4:
        tags.insert(-1, (338, 3, 1, 2))
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        packed = struct.pack(order + ("HH" if short else "I"), *((value, 0) if short else (value,)))
        out += struct.pack(order + "HHI", tag, kind, count) + packed
    out += bytes(4) + struct.pack(f"{order}{c}H", *[16] * c)
    out += struct.pack(f"{order}{planes}I", *(place + size * i for i in range(planes)))
    out += struct.pack(f"{order}{planes}I", *[size] * planes)
    path.with_suffix(".tif").write_bytes(out + body)
    return None


def colours(low, high, channels=3):
    """(32, 32, C) uint16, a gradient in each channel in a direction of its own."""
    planes = [GRADIENT, GRADIENT[::-1], GRADIENT.T, np.ones_like(GRADIENT)][:channels]
    return (low + np.stack(planes, 2) * (high - low)).round().astype(np.uint16)


@pytest.mark.parametrize("form", COLOUR_FILES)
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1023), (0, 4095), (0, 16383), (0, 65535), (27000, 31000)]
)
def test_colours_of_16_bits_fill_the_grey_levels(tmp_path, form, low, high):
    for i in range(2):
        write_colour(tmp_path / str(i), np.roll(colours(low, high), i, 0), form)
    source = open_source(str(tmp_path), image_size=32)
    assert not source.skipped
    wanted = colours(0, 255).astype(float)
    assert np.abs(source.image(0) - wanted).max() < 4
    told = noted(source, "16-bit colour values")
    assert told["count"] == 2
    assert f"{low:g} to {high:g} become 0 to 255" in told["text"]
    query = image_query(next(tmp_path.iterdir()), source)  # a query is scaled as the folder is
    assert query.shape == (1, 3, 32, 32)
    assert open_source(str(tmp_path), image_size=32, range=(0, 65535)).image(0).max() <= high / 250


def test_the_range_of_colours_is_that_of_the_folder(tmp_path):
    for i, top in enumerate((1000, 4000)):
        write_colour(tmp_path / str(i), colours(0, top), "png")
    source = open_source(str(tmp_path), image_size=32)
    assert [int(source.image(i).max()) for i in range(2)] == [62, 249]


@pytest.mark.parametrize("top", [4095, 65535])
@pytest.mark.parametrize("opaque", [4095, 65535])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("form", ["png", "tiff", "deflate tiff"])
def test_alpha_of_16_bits_is_laid_on_a_ground(tmp_path, top, opaque, channels, form):
    """Opaque is the largest value of 16 bits, or that of the colours."""
    if channels == 2 and form != "png":
        pytest.skip("Pillow reads no TIFF of two channels of 16 bits: it is listed")
    values = colours(0, top, 4)[:, :, [0, 3] if channels == 2 else [0, 1, 2, 3]]
    values[:, :, -1] = min(opaque, top) if opaque < top else opaque
    values[:8, :, -1] = 0
    values[:8, :, :-1] = 65535  # colours that nobody sees do not count
    for i in range(2):
        write_colour(tmp_path / str(i), values, form)
    source = open_source(str(tmp_path), image_size=32)
    image = source.image(0).astype(float)
    assert (image[:8] > 250).all()
    if opaque >= top:
        wanted = colours(0, 255, 3)[:, :, [0] * 3 if channels == 2 else [0, 1, 2]]
        assert np.abs(image[9:] - wanted[9:, :, : image.shape[2]]).max() < 4


def test_a_transparent_colour_of_16_bits(tmp_path):
    values = colours(0, 4095)
    values[:8] = (7, 8, 9)
    for i in range(2):
        write_png16(tmp_path / f"{i}.png", values, clear=(7, 8, 9))
    image = open_source(str(tmp_path), image_size=32).image(0)
    assert (image[:8] == 255).all()
    assert (image[9:] != 255).any(2).mean() > 0.9


def test_lab_is_read_in_colour(tmp_path):
    for i in range(2):
        Image.new("LAB", (20, 20), (140 + i, 190, 170)).save(tmp_path / f"{i}.tif")
    source = open_source(str(tmp_path))
    red, green, blue = source.image(0)[5, 5].tolist()
    assert red > green + 40 > blue  # orange
    assert noted(source, "LAB to RGB")["count"] == 2


# alpha --------------------------------------------------------------------------------------------


def drawn(colour, size=64):
    """A disc of a colour on nothing."""
    image = Image.new("RGBA", (size, size), (*colour, 0))
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill=(*colour, 255))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
@pytest.mark.parametrize(
    ("colour", "ground"),
    [((255, 255, 255), "black"), ((250, 252, 255), "black"), ((0, 0, 0), "white"),
     ((200, 30, 30), "white"), ((128, 128, 128), "white")],
)  # fmt: skip
def test_what_is_drawn_is_seen_whatever_its_colour(tmp_path, colour, ground, mode):
    for i in range(2):
        image = drawn(colour)
        image.convert("LA").save(tmp_path / f"{i}.png") if mode == "LA" else (
            image.quantize(8) if mode == "PA" else image
        ).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path))
    image = source.image(0).astype(int)
    assert image.max() - image.min() > 50
    if colour != (200, 30, 30) or mode != "LA":
        assert noted(source, f"flattened on {ground}")["count"] == 2


def test_pictures_without_content_are_warned_of(tmp_path):
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "plain.png")
    side = Image.new("RGB", (78, 40), "white")
    side.paste("black", (0, 5, 12, 35))
    side.save(tmp_path / "side.png")
    source = open_source(str(tmp_path))
    assert noted(source, "blank after flattening")["names"] == ["clear.png"]
    assert noted(source, "blank")["names"] == ["plain.png"]
    assert noted(source, "blank middle")["names"] == ["side.png"]
    assert all("warning" in noted(source, kind)["text"] for kind in ("blank", "blank middle"))


def test_the_survey_of_headers_decodes_no_picture(photos, monkeypatch):
    """Every header is read before the memory of decoding is bounded."""

    def refuse(self):
        raise AssertionError("decoded")

    for name in ("x.png", "x.jpg", "x.webp", "x.tif", "x.bmp", "x.gif"):
        Image.new("RGB", (20, 20), "red").save(photos / name)
    for reader in (ImageFile.ImageFile, *ImageFile.ImageFile.__subclasses__()):
        if "load" in vars(reader):
            monkeypatch.setattr(reader, "load", refuse)
    headers = [image_folder._header(path) for path in sorted(photos.glob("x.*"))]
    assert all(header.cost for header in headers)


# long pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 84), (84, 300), (900, 100), (4000, 20)])
@pytest.mark.parametrize("fit", ["pad", "squeeze"])
def test_what_lies_at_the_ends_of_a_long_picture_is_kept(tmp_path, size, fit):
    for i, colour in enumerate(("red", "blue")):
        image = Image.new("RGB", size, "white")
        long = max(size) // 8
        image.paste(colour, (0, 0, long, size[1]) if size[0] > size[1] else (0, 0, size[0], long))
        image.save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path), image_size=64, fit=fit)
    image = source.image(0).astype(int)
    assert image.shape[0] == image.shape[1]  # the middle square is all of it
    red = (image[..., 0] > 180) & (image[..., 1] < 90)
    assert red.mean() > 0.01
    kind = {"pad": "padded", "squeeze": "squeezed"}[fit]
    assert noted(source, kind)["count"] == 2
    assert "--fit" in noted(source, "padded")["text"] if fit == "pad" else True


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
@pytest.mark.parametrize("colour", ["white", "black"])
@pytest.mark.parametrize("size", [(300, 84), (84, 300), (640, 120)])
def test_signs_at_the_end_of_a_strip_stay_different_pictures(tmp_path, mode, colour, size):
    """Clefs at the end of a clear staff, bolts in white: neither empty nor copies of each other."""
    draw = np.random.default_rng(0)
    for i in range(6):
        image = Image.new("RGBA", size, (0, 0, 0, 0))
        side = min(size)
        points = [tuple(int(v) for v in draw.integers(4, side - 4, 2)) for _ in range(7)]
        ImageDraw.Draw(image).line(points, fill=colour, width=4)
        if mode == "LA":
            image = image.convert("LA")
        (image.quantize(8) if mode == "PA" else image).save(tmp_path / f"{i}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    seen = inspect_source(str(tmp_path), console=Console(quiet=True))
    groups = [[seen.source.ids[i] for i in g] for g in seen.copies.together]
    assert groups == [["0.png", "copy.png"]]
    assert noted(seen.source, "padded")["count"] == 7
    assert not [n for n in seen.source.notes if n["kind"].startswith("blank")]
    view = evaluation_view(seen.source, seen.source.read(torch.arange(7)))
    assert (view.flatten(1).max(1).values - view.flatten(1).min(1).values > 0.3).all()


def test_long_pictures_can_be_cut(tmp_path):
    for i in range(2):
        Image.new("RGB", (300, 84), (i, 9, 9)).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path), image_size=64, fit="cut")
    assert source.image(0).shape[1] == 2 * source.image(0).shape[0]
    with pytest.raises(ConfigError, match="--fit"):
        open_source(str(tmp_path), fit="stretch")


# several frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gif", "tif", "webp", "png", "avif"])
def test_of_several_frames_the_first_is_read_and_that_is_said_once(tmp_path, ending):
    for i in range(3):
        frames = [Image.new("RGB", (30, 20), c) for c in ((250, 0, i), (0, 0, 250))]
        frames[0].save(tmp_path / f"{i}.{ending}", save_all=True, append_images=frames[1:])
    source = open_source(str(tmp_path))
    assert source.image(0)[..., 0].mean() > 200
    assert noted(source, "several frames")["count"] == 3


# drafts -------------------------------------------------------------------------------------------


def photographs():
    """Two photographs of 12 megapixels, as JPEG."""
    for pixels in load_sample_images().images:
        room = io.BytesIO()
        Image.fromarray(pixels).resize((4000, 3001)).save(room, "JPEG", quality=92)
        yield room.getvalue()


@pytest.mark.parametrize("short", [37, 74, 147, 258, 515])
def test_drafts_of_photographs_differ_by_less_than_half_a_grey_level(monkeypatch, short):
    for raw in photographs():
        quick = decode_image(io.BytesIO(raw), 3, short=short).image.astype(float)
        monkeypatch.setattr(image_decoding, "DRAFT", 1000.0)
        whole = decode_image(io.BytesIO(raw), 3, short=short).image.astype(float)
        monkeypatch.undo()
        assert quick.shape == whole.shape
        assert np.abs(quick - whole).mean() < 0.5


@pytest.mark.parametrize("size", [(2003, 1501), (999, 1000), (1601, 1600)])
def test_a_draft_is_not_shifted(size):
    """The last blocks of a draft reach over the edge, which once stretched the picture."""
    ramp = np.linspace(0, 255, size[0])[None].repeat(size[1], 0).astype(np.uint8)
    room = io.BytesIO()
    Image.fromarray(ramp).save(room, "JPEG", quality=95)
    room.seek(0)
    row = decode_image(room, 1, short=50, fit="squeeze").image[20, :, 0].astype(float)
    steps = (np.arange(len(row)) + 0.5) / len(row) * 255
    assert np.abs(row - steps)[2:-2].max() < 2


def test_a_draft_needs_less_memory():
    raw = next(iter(photographs()))
    cost = image_decoding.cost(open_picture(io.BytesIO(raw)))
    assert cost.bytes(74, "pad") < cost.bytes(None, "pad") / 50


# memory -------------------------------------------------------------------------------------------


def white_png(path, width, height, depth=1, colour=0):
    """A large PNG of zeros, in a few kilobytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = b"\0" * (1 + -(-width * depth * channels // 8))
    packer = zlib.compressobj(6)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_pictures_above_pillows_limit_are_read_without_a_warning(photos):
    white_png(photos / "scan.png", 20_000, 10_000)  # 200 megapixels of 1 bit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(str(photos))
    assert (len(source), source.skipped) == (25, [])
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3  # Pillow's own limit is left alone


def test_the_bound_is_on_memory_and_can_be_raised(photos):
    white_png(photos / "a.png", 3000, 3000, 8, 2)
    white_png(photos / "b.png", 3000, 2999, 8, 2)
    white_png(photos / "c.png", 3000, 3000)
    source = open_source(str(photos), max_megapixels=8)
    assert {s["path"] for s in source.skipped} == {"a.png", "b.png"}
    assert [s["reason"].partition(":")[0] for s in source.skipped] == ["too large"] * 2
    assert re.search(r"--max-megapixels above \d+", source.skipped[0]["reason"])
    assert not open_source(str(photos), max_megapixels=10).skipped


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of /proc")
def test_deep_and_transparent_pictures_are_decoded_in_bounded_memory(tmp_path):
    for i in range(4):
        white_png(tmp_path / f"{i}.png", 6000 + i, 6000, 16, 0)
        white_png(tmp_path / f"a{i}.png", 6000 + i, 6000, 8, 6)
    code = (
        "import resource, sys; from tellapart.data import open_source\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "source = open_source(sys.argv[1], max_megapixels=100, cache=sys.argv[1] + '/../c')\n"
        "print(len(source), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    items, megabytes = map(int, done.stdout.split())
    assert items == 8
    assert megabytes < 700  # four at once as float64 took more than 1,100


def test_work_in_order_never_holds_more_than_its_budget():
    held, most, lock = [0.0], [0.0], threading.Lock()
    sizes = RANDOM.integers(1, 60, 80).tolist()

    def work(size):
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])
        time.sleep(0.001)
        return size

    got = []
    for item, result in in_order(sizes, work, need=float, budget=100):
        with lock:
            held[0] -= result
        got.append(item)
    assert got == sizes
    assert most[0] <= 100


def test_the_same_files_every_time(photos, tmp_path):
    for i in range(20):
        shutil.copy(photos / "red" / f"{i % 8}.png", photos / f"c{i}.png")
        white_png(photos / f"w{i}.png", 2000 + i, 2000, 16)
    prints = {
        open_source(str(photos), cache=tmp_path / str(k), max_megapixels=4).fingerprint
        for k in range(4)
    }
    assert len(prints) == 1


def test_a_batch_is_read_as_it_is_packed(photos):
    source = open_source(str(photos), image_size=32)
    batch = source.read(torch.tensor([3]))
    assert batch["pixels"].numel() == source.image(3).size
