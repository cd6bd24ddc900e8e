"""Sound files as a source: decoded once by soundfile, to mono int16 at one rate."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingExtraError
from . import files as listings
from . import image_packing, sequences
from .cache import Cache
from .files import Listing
from .kinds import AUDIO
from .sequences import SequenceSource
from .source import Array

HIGHEST = 16_000  # Hz: a file of more is resampled to this unless --sample-rate says otherwise
LEAST, MOST = (
    0.1,
    20.0,
)  # seconds of an instance: shorter files are left out, longer ones cut evenly
SILENT = 8 / 32768  # largest sample of a file that says nothing
CLIPPED = 0.05  # share of samples at full scale above which a file is left out


def audio_source(
    name: str,
    listing: Listing,
    cache: Cache,
    *,
    rate: int | None,
    progress: sequences.Progress | None = None,
) -> SequenceSource:
    """Pack the listed sounds (once) and describe them.

    Several channels are averaged; 8 to 64 bits become 16; every file is resampled to one rate. Left out and listed:
    what cannot be read, is cut off, silent, clipped in more than 5 % of its samples, or shorter than 0.1 s.

    Args: rate: Hz; None: that of most files, at most 16,000.
    """
    if not listing.names:
        raise DataError(f"{name} holds no sounds ({', '.join(sorted(AUDIO))})")
    if rate is not None and not 1000 <= rate <= 192_000:
        raise DataError(f"--sample-rate must lie in 1000..192000 Hz, got {rate}")
    soundfile()
    rate = rate or _survey(listing.files)

    def make(into: Path, limit: float) -> None:
        with image_packing.appearing(into) as work:
            pieces = sequences.reported(_decoded(listing.files, rate), len(listing.names), progress)
            sequences.pack(work, pieces, listing.names, longest=round(MOST * rate), limit=limit)

    packed = sequences.load(
        cache.entry(listings.key(listing, "audio", sequences.FORMAT, rate), make)
    )
    if len(packed.offset) < 2:
        raise listings.too_few(name, "sound(s)", len(packed.offset), packed.skipped)
    ends = sequences.endings(packed, rate)
    identity = listings.identity(
        name, listing, packed.file.tolist(), packed.hashes, packed.skipped, ends
    )
    firsts = Counter(
        h for h, start in zip(packed.hashes, packed.start.tolist(), strict=True) if not start
    )
    duplicates = sum(count - 1 for count in firsts.values())
    return SequenceSource(**identity, packed=packed, kind="audio", rate=rate, duplicates=duplicates)


def decode(path: Path, rate: int) -> tuple[Array, str]:
    """A sound (T, 1) int16 at `rate` Hz, and the hash of its file.

    Raises:
        DataError: why the file cannot be used.
    """
    raw = path.read_bytes()
    if not raw:
        raise DataError("the file is empty")
    _check_whole(raw)
    with soundfile().SoundFile(io.BytesIO(raw)) as file:
        expected, native, coarse = (
            file.frames,
            file.samplerate,
            file.subtype in ("PCM_U8", "PCM_S8"),
        )
        samples = file.read(dtype="float32", always_2d=True)
    if len(samples) < expected:
        raise DataError(f"cut off: {len(samples):,} of {expected:,} samples")
    if not np.isfinite(samples).all():
        raise DataError("it holds values that are not finite")
    if len(samples) < LEAST * native:
        raise DataError(f"too short: {len(samples) / native:.3f} s, {LEAST} s or more are needed")
    clipped = float((np.abs(samples) > (0.99 if coarse else 0.999)).mean())
    if clipped > CLIPPED:
        raise DataError(f"clipped: {clipped:.0%} of its samples are at full scale")
    mono = samples.mean(1)
    if np.abs(mono).max() <= SILENT:
        raise DataError("silent")
    if native != rate:
        from scipy.signal import resample_poly

        shared = math.gcd(native, rate)
        mono = resample_poly(mono, rate // shared, native // shared)
    whole = np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)
    return whole[:, None], hashlib.blake2b(raw, digest_size=16).hexdigest()


def _check_whole(raw: bytes) -> None:
    """Raise DataError where a file ends before its container says; decoders of these do not tell."""
    if raw[:4] in (b"RIFF", b"FORM") and len(raw) >= 8:
        missing = struct.unpack("<I" if raw[:4] == b"RIFF" else ">I", raw[4:8])[0] + 8 - len(raw)
        if 1 < missing < 2**31:  # a stream of unknown length says 2 ** 32 - 1
            raise DataError(f"cut off: {missing:,} bytes are missing")
    if raw[:4] == b"OggS":
        page = raw[raw.rfind(b"OggS") :]
        size = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 27 else len(page) + 1
        if len(page) < size or not page[5] & 4:  # the last page is marked as such
            raise DataError("cut off: its last page is missing")


def read_marks(sound: Path) -> list[tuple[float, float, str]]:
    """What is said when in a sound: lines of start, end (seconds) and a label beside it, in a file NAME.lab.

    Separated by tabs, as Audacity writes its label tracks. Empty without such a file.

    Raises:
        DataError: a line that is none.
    """
    path = sound.with_suffix(".lab")
    if not path.is_file():
        return []
    found = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) != 3 or not float(cells[0]) <= float(cells[1]):
                raise ValueError(f"line {number} is not start, end and label, separated by tabs")
            found.append((float(cells[0]), float(cells[1]), cells[2].strip()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return found


def soundfile() -> Any:
    """The package that decodes.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import soundfile as package
    except ImportError as error:
        raise MissingExtraError("soundfile", "audio") from error
    except OSError as error:
        raise DataError(f"soundfile finds no libsndfile: {error}") from error
    return package


def _decoded(files: list[Path], rate: int) -> Iterator[tuple[int, Array | str, str]]:
    """Each file's samples, or why it is left out, in their order."""

    def one(path: Path) -> tuple[Array | str, str]:
        try:
            return decode(path, rate)
        except DataError as error:
            return str(error), ""
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # soundfile's own error is a RuntimeError
            return f"not a sound that can be read ({str(error).split(': ')[-1]})", ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for begin in range(0, len(files), 64):  # bounded: decoded sounds never pile up
            chunk = range(begin, min(begin + 64, len(files)))
            for number, (sequence, digest) in zip(
                chunk, pool.map(lambda i: one(files[i]), chunk), strict=True
            ):
                yield number, sequence, digest


def _survey(files: list[Path]) -> int:
    """The rate of most files, of up to 1,000 spread over the list, at most HIGHEST."""
    rates: Counter[int] = Counter()
    for path in files[:: max(1, len(files) // 1000)]:
        try:
            rates[soundfile().info(str(path)).samplerate] += 1
        except (OSError, RuntimeError):
            continue
    return min(HIGHEST, rates.most_common(1)[0][0]) if rates else HIGHEST
