"""Sound files as a source: decoded once by soundfile, to mono int16 at one rate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError, MissingExtraError
from . import endings, image_packing, sequences
from . import files as listings
from .bounded import in_order
from .cache import Cache
from .files import Listing, open_regular, reason
from .notes import Note, counted, note, shown
from .options import ReadOptions
from .sequences import SequenceSource
from .source import Array
from .wave_header import repaired

FORMAT = 2
HIGHEST = 16_000  # Hz: a file of more is resampled to this unless --sample-rate says otherwise
LEAST, MOST = 0.1, 20.0  # seconds of an item: shorter files are left out, longer ones cut evenly
LONGEST = 6 * 3600  # seconds of a file; a longer one is left out
FASTEST = 768_000  # Hz of a file; a higher rate is an error of its header
SILENT = 8 / 32768  # largest sample of a file that is silence
CLIPPED = 0.05  # share of samples at full scale above which a file is left out
BLOCK = 1 << 20  # samples that are decoded at once
BUDGET = 1.5e9  # bytes of decoded sounds in memory


@dataclass(frozen=True)
class Header:
    """The header of a file; `rate` 0: it cannot be read."""

    rate: int = 0
    frames: int = 0


def audio_source(
    name: str,
    listing: Listing,
    cache: Cache,
    *,
    rate: int | None,
    options: ReadOptions | None = None,
    progress: sequences.Progress | None = None,
) -> SequenceSource:
    """Pack the listed sounds (once) and describe them.

    Several channels are averaged; 8 to 64 bits become 16; every file is resampled to one rate. Left
    out and listed: what cannot be read, is cut off, silent, clipped in more than 5 % of its
    samples, shorter than 0.1 s or longer than 6 hours.

    Args:
        name: what the user typed.
        listing: the files. cache: where decoded sounds are kept.
        rate: Hz; None: that of most files, at most 16,000.
        options: `piece` and `hop` in samples; None: files above 20 s are cut evenly.
        progress: called with (done, total).
    Raises:
        DataError: fewer than two usable sounds, or a rate outside 1,000 to 192,000 Hz.
    """
    options = options or ReadOptions()
    if not listing.names:
        raise _no_sounds(name, listing)
    if rate is not None and not 1000 <= rate <= 192_000:
        raise DataError(f"--sample-rate must lie in 1000..192000 Hz, got {rate}")
    soundfile()
    headers = _survey(listing, cache)
    rates = Counter(h.rate for h in headers if 0 < h.rate <= FASTEST)
    rate = rate or (min(HIGHEST, rates.most_common(1)[0][0]) if rates else HIGHEST)
    longest = options.piece or round(MOST * rate)

    def make(into: Path, limit: float) -> None:
        with image_packing.appearing(into) as work:
            decoded = _decoded(listing.files, headers, rate)
            pieces = sequences.reported(decoded, len(listing.names), progress)
            sequences.pack(
                work, pieces, listing.names, longest=longest, limit=limit,
                piece=options.piece, hop=options.hop,
            )  # fmt: skip

    key = listings.key(listing, "audio", FORMAT, sequences.FORMAT, rate, options.piece, options.hop)
    entry = cache.entry(key, make, lambda made: sequences.contents(made, listing.files))
    packed = sequences.load(entry)
    if len(packed.offset) < 2:
        skipped = [*listing.skipped, *packed.skipped]
        raise listings.too_few(name, "sound", "sounds", len(packed.offset), skipped)
    ends = sequences.endings(packed, rate)
    identity = listings.identity(
        name, listing, packed.file.tolist(), packed.hashes, packed.skipped, ends
    )
    identity["notes"] += _of_rates(listing, headers, rate, set(packed.file.tolist()))
    identity["notes"] += sequences.notes_of(packed, listing.names, "samples")
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
    values, digest, _ = _decode(path, rate)
    return values, digest


def _decode(path: Path, rate: int) -> tuple[Array, str, tuple[str, ...]]:
    """As `decode`, and what was done to the sound."""
    with open_regular(path) as file:
        if not file.read(1):
            raise DataError("the file is empty")
        whole = repaired(file)
        _check_ogg(file)
        file.seek(0)
        with soundfile().SoundFile(whole) as sound:
            native = int(sound.samplerate)
            if not 0 < native <= FASTEST:
                raise DataError(f"sample rate: {native:,} Hz, {FASTEST:,} at most")
            peak = _peak(sound)
            scale = np.float32(32768 / max(1.0, peak))
            blocks = (block.astype(np.float32) * scale for block in _mono(sound, peak > 1))
            # Rates that share no divisor would need a filter of as many taps as their product.
            ratio = Fraction(rate, native).limit_denominator(4096)
            parts = [
                np.clip(np.rint(part), -32768, 32767).astype(np.int16)
                for part in _resampled(blocks, ratio.numerator, ratio.denominator)
            ]
        digest = listings.digest_of(file)
    values = np.concatenate(parts)
    if max(-int(values.min()), int(values.max())) <= SILENT * 32768:
        raise DataError("silent")
    return values[:, None], digest, (("loud",) if peak > 1 else ())


def _peak(sound: Any) -> float:
    """The largest sample of a file of floats, which may be above 1; 0 for the others."""
    if sound.subtype not in ("FLOAT", "DOUBLE"):
        return 0.0
    peak = 0.0
    for block in _blocks(sound):
        peak = max(peak, float(np.abs(block).max()))
    sound.seek(0)
    return peak


def _blocks(sound: Any) -> Iterator[Array]:
    """The samples (T, C) float32, some at a time."""
    while len(
        block := sound.read(max(1, BLOCK // sound.channels), dtype="float32", always_2d=True)
    ):
        yield block


def _mono(sound: Any, loud: bool) -> Iterator[Array]:
    """The mean of all channels (T,), some samples at a time, checked on the way.

    Args: loud: floats above 1, which are not clipped.
    Raises:
        DataError: why the sound cannot be used.
    """
    native, expected = int(sound.samplerate), int(sound.frames)
    too_long = DataError(f"too long: more than {LONGEST // 3600} hours; cut it into files")
    if LONGEST * native < expected < 1 << 62:  # the greatest number says that it is not known
        raise too_long
    level = 0.99 if sound.subtype in ("PCM_U8", "PCM_S8") else 0.999
    frames, high = 0, 0
    for block in _blocks(sound):
        if not np.isfinite(block).all():
            raise DataError("not finite: it holds values that are no numbers")
        high += int((np.abs(block) > level).sum())
        frames += len(block)
        if frames > LONGEST * native:
            raise too_long
        yield block.mean(1)
    if frames < expected < 1 << 62:
        raise DataError(f"cut off: {frames:,} of {expected:,} samples")
    if frames < LEAST * native:
        raise DataError(f"too short: {frames / native:.3f} s, {LEAST} s or more are needed")
    if not loud and high > CLIPPED * frames * sound.channels:
        share = high / (frames * sound.channels)
        raise DataError(f"clipped: {share:.0%} of its samples are at full scale")


def _resampled(blocks: Iterable[Array], up: int, down: int) -> Iterator[Array]:
    """A signal at `up` / `down` of its rate, block by block, as `resample_poly` makes it at once.

    Each block is resampled with as many samples on either side as the filter reaches.
    """
    if up == down:
        yield from blocks
        return
    from scipy.signal import resample_poly

    reach = -(-(10 * max(up, down) // up + 2) // down) * down
    size = max(BLOCK // down, 1) * down
    waiting: Array = np.zeros(reach, np.float32)  # what is before the next block, then the block
    done = False
    source = iter(blocks)
    while not done:
        while len(waiting) < reach + size + reach and not done:
            block = next(source, None)
            done = block is None
            if block is not None:
                waiting = np.concatenate([waiting, block])
        while len(waiting) >= reach + size + reach:
            made = resample_poly(waiting[: reach + size + reach], up, down)
            start = reach * up // down
            yield made[start : start + size * up // down]
            waiting = waiting[size:]
    rest = len(waiting) - reach
    if rest > 0:
        made = resample_poly(waiting, up, down)
        start = reach * up // down
        yield made[start : start + -(-rest * up // down)]


def _check_ogg(file: BinaryIO) -> None:
    """Raise DataError if the last page of an Ogg file is cut; its decoder does not tell."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return
    file.seek(0, 2)
    length = file.tell()
    file.seek(max(0, length - (1 << 17)))  # a page has 65,307 bytes at most
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    size = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 27 else len(page) + 1
    if len(page) < size or not page[5] & 4:  # the last page is marked as such
        raise DataError("cut off: its last page is missing")


def read_marks(sound: Path) -> list[tuple[float, float, str]]:
    """Labels of stretches of a sound: start, end (seconds) and label, from NAME.lab beside it.

    A line each, separated by tabs, as Audacity writes its label tracks. Empty without such a file.

    Raises:
        DataError: a line that is none.
    """
    path = sound.with_suffix(".lab")
    if not path.is_file():
        return []
    found = []
    try:
        lines = listings.decode_text(listings.read_bytes(path)).splitlines()
        for number, line in enumerate(lines, 1):
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


def _no_sounds(name: str, listing: Listing) -> DataError:
    said = [str(n["text"]) for n in listing.notes if n["count"]]
    return DataError(
        f"{listings.readable(name)} holds no sounds that can be read"
        + (f": {'; '.join(said)}" if said else "")
        + f" (read are {', '.join(sorted(endings.AUDIO))})"
    )


def _decoded(
    files: Sequence[Path], headers: Sequence[Header], rate: int
) -> Iterator[tuple[int, Array | str, str, tuple[str, ...]]]:
    """Each file's samples, or why it is left out, in their order."""

    def one(row: int) -> tuple[Array | str, str, tuple[str, ...]]:
        try:
            return _decode(files[row], rate)
        except DataError as error:
            return str(error), "", ()
        except RuntimeError as error:  # soundfile's own
            return f"damaged: not a sound that can be read ({str(error).split(': ')[-1]})", "", ()
        except Exception as error:  # the readers raise many kinds on a damaged file
            return reason(error), "", ()

    def need(row: int) -> float:
        header = headers[row]
        if not header.rate:
            return 0.0
        seconds = min(header.frames / header.rate, LONGEST)
        return 4.0 * seconds * rate + 32.0 * BLOCK  # the parts and the whole, and some blocks

    for row, result in in_order(range(len(files)), one, need=need, budget=BUDGET):
        yield (row, *result)


def _survey(listing: Listing, cache: Cache) -> list[Header]:
    """The header of every file; kept in the cache."""
    files = listing.files

    def make(into: Path, _: float) -> None:
        found = in_order(files, _header, need=lambda _: 0.0, budget=1.0, most=512)
        with image_packing.appearing(into) as work:
            (work / "headers.json").write_text(json.dumps([asdict(h) for _, h in found]))

    folder = cache.entry(listings.key(listing, "sound headers", FORMAT), make, summary=True)
    return [Header(**row) for row in json.loads((folder / "headers.json").read_text())]


def _header(path: Path) -> Header:
    try:
        with open_regular(path) as file:
            about = soundfile().info(repaired(file))
            return Header(int(about.samplerate), int(about.frames))
    except Exception:  # decoding lists it, with the reason
        return Header()


def _of_rates(
    listing: Listing, headers: Sequence[Header], rate: int, kept: set[int]
) -> Iterator[Note]:
    """A note on the files that were resampled."""
    others = [i for i in sorted(kept) if headers[i].rate not in (0, rate)]
    if others:
        rates = sorted({headers[i].rate for i in others})
        names = [listings.readable(listing.names[i]) for i in others]
        said = shown([f"{r:,}" for r in rates])
        text = f"{counted(len(others), 'sound')} of {said} Hz resampled to {rate:,} Hz"
        yield note("resampled", text, count=len(others), names=names)
