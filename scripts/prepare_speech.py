"""Real speech to learn from, made of what Debian has.

    python scripts/prepare_speech.py prompts FOLDER
    python scripts/prepare_speech.py phones FOLDER [HOW MANY]

prompts: the asterisk-core-sounds-*-wav packages, one folder per speaker and language, every prompt
at one loudness (-26 dB of full scale), so that loudness tells no speaker. phones: English sentences
spoken by espeak-ng in six voices at 16,000 Hz, each with its phonemes and their times beside it in
NAME.lab (start, end in seconds, phoneme); every fifth sentence is of the test part, in all voices.
The sentences are those of scikit-learn's descriptions of its data sets.

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-wav espeak-ng
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

ASTERISK = Path("/usr/share/asterisk/sounds")
LOUDNESS = 10 ** (-26 / 20)  # root mean square, of full scale
SOUNDLESS = ("silence", "beep", "tone")  # prompts that say nothing
VOICES = ("en+m1", "en+m3", "en+m7", "en+f1", "en+f2", "en+f4")
RATE = 16_000
PHONEME, SAMPLE_RATE_EVENT, END = 7, 8, 0  # espeak_EVENT_TYPE


def prompts(folder: Path) -> int:
    """Write the installed prompts; the number of files."""
    count = 0
    for speaker in sorted(p for p in ASTERISK.glob("*_*_*") if p.is_dir() and not p.is_symlink()):
        for path in sorted(speaker.rglob("*.wav")):
            name = path.relative_to(speaker)
            if any(word in str(name) for word in SOUNDLESS):
                continue
            samples, rate = soundfile.read(path)
            level = np.sqrt(np.mean(samples**2)) if len(samples) else 0.0
            if not level:
                continue
            target = folder / speaker.name / "_".join(name.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                target, np.clip(samples * LOUDNESS / level, -1, 1), rate, subtype="PCM_16"
            )
            count += 1
    return count


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


class Espeak:
    """libespeak-ng, asked for samples and phoneme events instead of playing them."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
        retrieval, phoneme_events_in_ipa = 1, 1 | 2
        self.rate = self.library.espeak_Initialize(retrieval, 0, None, phoneme_events_in_ipa)
        if self.rate <= 0:
            raise SystemExit("libespeak-ng does not start: apt-get install espeak-ng")
        self.samples: list[np.ndarray[Any, Any]] = []
        self.events: list[tuple[float, str]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self.callback = kind(self._take)  # kept, or it is freed while the library holds it
        self.library.espeak_SetSynthCallback(self.callback)

    def say(
        self, text: str, voice: str
    ) -> tuple[np.ndarray[Any, Any], list[tuple[float, float, str]]]:
        """Samples in [-1, 1] and (start, end, phoneme) in seconds."""
        self.samples, self.events = [], []
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak-ng has no voice {voice}")
        data = text.encode() + b"\0"
        utf8 = 1
        self.library.espeak_Synth(data, len(data), 0, 1, 0, utf8, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate(self.samples).astype(np.float64) / 32768
        ends = [start for start, _ in self.events[1:]] + [len(samples) / self.rate]
        return samples, [
            (start, end, name)
            for (start, name), end in zip(self.events, ends, strict=True)
            if end > start and name
        ]

    def _take(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self.samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != END:
            if events[i].type == PHONEME:
                name = events[i].id.string.decode("utf-8", "ignore").strip("ˈˌ‍ ")
                self.events.append((events[i].audio_position / 1000, name))
            i += 1
        return 0


def sentences() -> list[str]:
    """English sentences and parts of them, of 3 to 25 words, each once, in a shuffled order."""
    found: set[str] = set()
    for path in sorted(files("sklearn.datasets.descr").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".rst"):
            text = re.sub(r"[`*_()\"]", "", path.read_text(encoding="utf-8"))
            text = re.sub(r"\s+", " ", text)
            found |= {s.strip() for s in re.split(r"(?<=[.?!:;,])\s", text)}
    good = sorted(
        s for s in found if re.fullmatch(r"[A-Za-z ,.'-]+", s) and 3 <= len(s.split()) <= 20
    )
    random.Random(0).shuffle(good)
    return good


def phones(folder: Path, most: int) -> int:
    """Write spoken sentences and their phonemes; the number of files."""
    espeak, count = Espeak(), 0
    for number, text in enumerate(sentences()[: -(-most // len(VOICES))]):
        for voice in VOICES:
            samples, marks = espeak.say(text, voice)
            samples = resample_poly(samples, RATE, espeak.rate)
            target = (
                folder
                / ("test" if number % 5 == 0 else "train")
                / voice.replace("+", "-")
                / f"{number:04d}.wav"
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            level = np.sqrt(np.mean(samples**2))
            soundfile.write(
                target, np.clip(samples * LOUDNESS / level, -1, 1), RATE, subtype="PCM_16"
            )
            lines = "".join(f"{start:.3f}\t{end:.3f}\t{name}\n" for start, end, name in marks)
            target.with_suffix(".lab").write_text(lines, encoding="utf-8")
            count += 1
    return count


def main() -> None:
    """The part that the command line names."""
    if len(sys.argv) < 3 or sys.argv[1] not in ("prompts", "phones"):
        raise SystemExit(__doc__)
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "prompts":
        if not ASTERISK.is_dir():
            raise SystemExit(
                f"{ASTERISK} is missing: apt-get install asterisk-core-sounds-en-wav, -es-wav, ..."
            )
        print(prompts(folder), "prompts in", folder)
    else:
        print(
            phones(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 2400), "sentences in", folder
        )


if __name__ == "__main__":
    main()
