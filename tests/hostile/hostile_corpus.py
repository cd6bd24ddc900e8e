"""Valid small files of every format, and the ways in which they are damaged.

Everything is a function of a seed, so that an input that fails can be made again.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from samples import some_sentences

Random = np.random.Generator


def random_of(*seed: Any) -> Random:
    """A generator that depends on all of the seeds, strings among them."""
    return np.random.default_rng([hash_of(s) for s in seed])


def hash_of(seed: Any) -> int:
    """A number that is the same in every process."""
    return seed if isinstance(seed, int) else int.from_bytes(str(seed).encode()[:64], "big")


# damage ------------------------------------------------------------------------------------------


def truncated(raw: bytes, random: Random) -> bytes:
    return raw[: int(random.integers(0, len(raw)))]


def flipped(raw: bytes, random: Random) -> bytes:
    changed = bytearray(raw)
    for place in random.integers(0, len(raw), int(random.integers(1, 9))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def head_flipped(raw: bytes, random: Random) -> bytes:
    """Bits of the header alone, where sizes and types are."""
    size = min(len(raw), 64)
    return flipped(raw[:size], random) + raw[size:]


def absurd(raw: bytes, random: Random) -> bytes:
    """Four or eight bytes of the header replaced by a number that no reader expects."""
    number = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 65_000][int(random.integers(7))]
    form = ["<I", ">I", "<Q", ">Q", "<H", ">H"][int(random.integers(6))]
    bits = struct.calcsize(form) * 8
    place = int(random.integers(4, max(5, min(len(raw), 128))))
    new = struct.pack(form, number % (1 << bits))
    return raw[:place] + new + raw[place + len(new) :]


def zeroed(raw: bytes, random: Random) -> bytes:
    a, b = sorted(random.integers(0, len(raw) + 1, 2).tolist())
    return raw[:a] + bytes(b - a) + raw[b:]


def inserted(raw: bytes, random: Random) -> bytes:
    place = int(random.integers(0, len(raw) + 1))
    return raw[:place] + random.bytes(int(random.integers(1, 200))) + raw[place:]


def repeated(raw: bytes, random: Random) -> bytes:
    a, b = sorted(random.integers(0, len(raw) + 1, 2).tolist())
    return raw[:b] + raw[a:b] * int(random.integers(1, 5)) + raw[b:]


def noise(raw: bytes, random: Random) -> bytes:
    return raw[: int(random.integers(0, 16))] + random.bytes(int(random.integers(0, 400)))


DAMAGE: tuple[Callable[[bytes, Random], bytes], ...] = (
    truncated, flipped, head_flipped, absurd, zeroed, inserted, repeated, noise,
)  # fmt: skip


def damaged(raw: bytes, number: int, random: Random) -> bytes:
    """A file with one kind of damage, chosen by its number."""
    return DAMAGE[number % len(DAMAGE)](raw, random)


# images ------------------------------------------------------------------------------------------


def pixels(random: Random, shape: tuple[int, ...] = (24, 30, 3)) -> Any:
    coarse = random.integers(0, 256, (4, 5, *shape[2:]), dtype=np.uint8)
    return np.kron(coarse, np.ones((shape[0] // 4, shape[1] // 5, *[1] * (len(shape) - 2)), "u1"))


def picture(name: str, random: Random) -> bytes:
    """The bytes of a picture, by its name: mode, a dash, and its ending."""
    mode, _, ending = name.partition("-")
    image = Image.fromarray(pixels(random))
    if mode in ("I16", "I", "F"):
        values = random.integers(0, 4096, (24, 30))
        kind = {"I16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(values.astype(kind))
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(random.integers(0, 256, (24, 30), dtype=np.uint8)))
    else:
        image = image.convert({"gray": "L", "bits": "1"}.get(mode, mode))
    options: dict[str, Any] = {
        "prog.jpg": {"progressive": True}, "lzw.tif": {"compression": "tiff_lzw"},
        "zip.tif": {"compression": "tiff_deflate"}, "anim.gif": {"save_all": True},
    }.get(ending, {})  # fmt: skip
    if ending == "anim.gif":
        options["append_images"] = [image.rotate(90), image.rotate(180)]
    if mode == "exif":
        image = image.convert("RGB")
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "camera"
    if ending in ("jpg", "webp", "png", "tif"):
        options["exif"] = exif
    form = Image.registered_extensions()["." + ending.rpartition(".")[2]]
    image.save(file, form, **options)
    return file.getvalue()


PICTURES = (
    "RGB-jpg", "gray-jpg", "CMYK-jpg", "RGB-prog.jpg", "RGB-png", "RGBA-png", "P-png", "I16-png",
    "bits-png", "RGB-gif", "RGB-anim.gif", "RGB-bmp", "P-bmp", "RGB-tif", "I16-tif", "F-tif",
    "RGB-lzw.tif", "RGB-zip.tif", "LAB-tif", "RGB-webp", "RGBA-webp", "RGB-ppm", "gray-pgm",
    "bits-pbm", "RGB-jp2", "RGB-avif",
)  # fmt: skip


# sounds ------------------------------------------------------------------------------------------

SOUNDS = (
    "PCM_16-wav", "PCM_U8-wav", "PCM_24-wav", "FLOAT-wav", "ULAW-wav", "PCM_16-flac",
    "VORBIS-ogg", "OPUS-ogg", "PCM_16-aiff", "MPEG_LAYER_III-mp3",
)  # fmt: skip


def sound(name: str, random: Random) -> bytes:
    """The bytes of a quarter of a second of sound, by subtype and ending."""
    import soundfile

    subtype, _, ending = name.partition("-")
    time = np.arange(4000) / 16000
    wave = 0.4 * np.sin(2 * np.pi * float(random.integers(200, 2000)) * time)
    wave = wave + 0.01 * random.standard_normal(4000)
    file = io.BytesIO()
    soundfile.write(file, wave, 16000, subtype=subtype, format=ending.upper())
    return file.getvalue()


# tables, text, vectors ---------------------------------------------------------------------------


def table(ending: str, random: Random) -> bytes:
    """The bytes of a table of numbers of 300 steps and 3 channels."""
    values = random.standard_normal((300, 3)).cumsum(0).astype(np.float32)
    if ending == "npy":
        file = io.BytesIO()
        np.save(file, values)
        return file.getvalue()
    separator = {"csv": ",", "tsv": "\t", "txt": ";"}[ending]
    lines = [separator.join(["time", "a", "b", "c"])]
    lines += [separator.join([str(i), *(f"{v:.4f}" for v in row)]) for i, row in enumerate(values)]
    return "\n".join(lines).encode()


def text(ending: str, random: Random) -> bytes:
    """The bytes of 40 sentences, or of pairs of sentences with labels."""
    lines = some_sentences(40, seed=int(random.integers(1000)))
    if ending == "txt":
        return "\n".join(lines).encode()
    if ending == "jsonl":
        rows = [{"text": line, "label": f"c{i % 3}"} for i, line in enumerate(lines)]
        return "\n".join(map(json.dumps, rows)).encode()
    separator = {"csv": ",", "tsv": "\t"}[ending]
    rows = [f"{line}{separator}{line} so{separator}c{i % 3}" for i, line in enumerate(lines)]
    return "\n".join([separator.join(["sentence1", "sentence2", "label"]), *rows]).encode()


def vectors(ending: str, random: Random) -> bytes:
    """The bytes of 40 labelled vectors, or of images in an array."""
    from tellapart.embeddings import Embeddings

    file = io.BytesIO()
    values = random.standard_normal((40, 8)).astype(np.float32)
    labels = np.arange(40) % 4
    ids = [f"item {i}" for i in range(40)]
    if ending == "parquet":
        import pyarrow.parquet

        table = Embeddings(values, ids, labels).to_arrow()
        pyarrow.parquet.write_table(table, file)
    elif ending == "images.npz":
        np.savez(file, x=random.integers(0, 256, (40, 12, 12), dtype=np.uint8), y=labels)
    elif ending == "images.npy":
        np.save(file, random.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8))
    else:
        np.savez(file, vectors=values, ids=np.array(ids), labels=labels)
    return file.getvalue()


def weights(ending: str, random: Random) -> bytes:
    """The bytes of a small network's weights."""
    import safetensors.torch

    from tellapart import encoders

    network = encoders.build("small-resnet", channels=3, size=32, seed=0, width=8)
    state = {name: value.contiguous() for name, value in network.backbone.state_dict().items()}
    file = io.BytesIO()
    if ending == "safetensors":
        return safetensors.torch.save(state)
    old = ending == "old.pt"
    torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


# JSON of wrong types -----------------------------------------------------------------------------

PAYLOAD = "32\nopen('PWNED', 'w').write('code ran')\n#"
ODD: tuple[Any, ...] = (
    None, True, -1, 1.5, 10**30, 1e308, float("nan"), float("inf"), "", "x", PAYLOAD, "\x1b[2J\n",
    "\u202e\ud800", "../../../etc/passwd", [], [1], ["x"], {}, {"a": {"b": []}}, "x" * 10_000,
    -(2**63), 2**63, "0", 0,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field of a JSON value, those inside others included."""
    found = [path]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += places(inner, (*path, name))
    elif isinstance(value, list) and value:
        found += places(value[0], (*path, 0))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at one place."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    return copy


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy of a JSON value without one of its fields."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


def odd_json(raw: bytes, random: Random) -> bytes:
    """A JSON file with one field of another type, or without it."""
    value = json.loads(raw)
    found = places(value)
    path = found[int(random.integers(len(found)))]
    if path and random.random() < 0.2:
        return json.dumps(without(value, path)).encode()
    return json.dumps(replaced(value, path, ODD[int(random.integers(len(ODD)))])).encode()


def save(path: Path, raw: bytes) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path
