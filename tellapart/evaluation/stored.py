"""Vectors of a source kept in chunks, so that an interrupted or second `eval` computes them once.

A chunk is a run of consecutive batches. It is kept when it took longer than SLOW seconds, so that
small sources leave no files. The key covers everything that a vector depends on: the weights, the
data, the view and the output.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Source
from ..data.cache import default_folder
from ..embeddings import Embeddings
from ..embeddings.incremental import identity
from ..encoders import AnyEncoder
from ..encoders.inference import Output, batches, outputs

CHUNK = 2048  # items, at least
SLOW = 2.0  # seconds
LIMIT = 4e9  # bytes of all kept vectors together; the entries used longest ago are removed


def embed_in_chunks(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...],
    *,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Embeddings]:
    """As `embeddings.embed_both`; chunks that an earlier call kept are read instead of computed.

    Args:
        encoder: the network; it is not changed.
        source: the items.
        wanted: "features", "embedding" or both.
        folder: where chunks are kept; by default `vectors` in the cache folder.
        progress: called with the number of items done.
    """
    root = (folder or default_folder()) / "vectors"
    place = root / _key(encoder, source, wanted)
    parts: list[dict[Output, Tensor]] = []
    done = 0
    for rows in _chunks(source, encoder.device):
        file = place / f"{int(rows[0]):09d}.npz"
        chunk = _read(file, wanted, len(rows))
        if chunk is None:
            began = time.monotonic()
            report = _after(done, progress) if progress else None
            chunk = outputs(encoder, source.subset(rows.numpy()), wanted, progress=report)
            if time.monotonic() - began > SLOW:
                _write(file, chunk)
        parts.append(chunk)
        done += len(rows)
        if progress:
            progress(done)
    if place.is_dir():
        os.utime(place)
        _trim(root, keep=place)
    about = {"data": source.name, "fingerprint": source.fingerprint}
    return {
        name: Embeddings(
            torch.cat([part[name] for part in parts]),
            source.ids,
            source.labels,
            about | {"output": name},
        )
        for name in wanted
    }


def _after(before: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: progress(before + done)


def _key(encoder: AnyEncoder, source: Source, wanted: tuple[Output, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(identity(encoder, source, "features").encode())
    about: Any = (source.fingerprint, wanted, str(encoder.device), torch.__version__)
    digest.update(repr(about).encode())
    digest.update(np.ascontiguousarray(source.rows).tobytes())
    return digest.hexdigest()


def _chunks(source: Source, device: torch.device) -> list[Tensor]:
    """Positions of each chunk: whole batches, so that a chunk's vectors equal those of one pass."""
    chunks: list[list[Tensor]] = [[]]
    for batch in batches(source, device):
        if sum(map(len, chunks[-1])) >= CHUNK:
            chunks.append([])
        chunks[-1].append(batch)
    return [torch.cat(chunk) for chunk in chunks]


def _read(file: Path, wanted: tuple[Output, ...], count: int) -> dict[Output, Tensor] | None:
    """A kept chunk; None where it is missing or damaged (zip checks a CRC)."""
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            outputs = {name: torch.from_numpy(arrays[name]) for name in wanted}
    except Exception:  # NumPy and zipfile raise many kinds on a damaged file
        return None
    fits = all(len(v) == count and v.dtype == torch.float32 for v in outputs.values())
    return outputs if fits else None


def _write(file: Path, outputs: dict[Output, Tensor]) -> None:
    """Keep a chunk, whole or not at all. A cache that cannot be written costs only time."""
    work = file.with_name(f".{file.stem}-{uuid.uuid4().hex}.npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(work, "wb") as out:
            arrays: dict[str, Any] = {name: value.numpy() for name, value in outputs.items()}
            np.savez(out, **arrays)
        os.replace(work, file)
    except OSError:
        work.unlink(missing_ok=True)


def _trim(root: Path, keep: Path) -> None:
    entries = {p: sum(f.stat().st_size for f in p.iterdir()) for p in root.iterdir() if p.is_dir()}
    total = sum(entries.values())
    for path in sorted(entries, key=lambda p: p.stat().st_mtime):
        if total <= LIMIT:
            return
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)
            total -= entries[path]
