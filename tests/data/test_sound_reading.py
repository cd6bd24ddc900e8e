"""Sounds as they are read: sizes in headers, floats above 1, rates, blocks, lengths."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from scipy.signal import resample_poly

from tellapart.data import audio, open_source
from tellapart.errors import DataError

soundfile = pytest.importorskip("soundfile")
RATE = 16_000
TONE = 0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def wav(path, **options):
    soundfile.write(path, TONE, RATE, **options)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize(
    ("riff", "data"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (None, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFFF), (0x7FFFF024,
        0x7FFFF000),
     (0x80000024, 0x80000000), (0, 0), (None, 0), (8, None), (1 << 30, None), ("+8", None),
     ("-8", None), (None, "+36"), (None, "+44"), (None, "+8"), (None, "/2")],
)  # fmt: skip
def test_sizes_that_are_open_or_a_little_wrong(tmp_path, riff, data, subtype):
    raw = wav(tmp_path / "x.wav", subtype=subtype)
    place = raw.index(b"data") + 4
    for at, given in ((4, riff), (place, data)):
        (true,) = struct.unpack("<I", raw[at : at + 4])
        if isinstance(given, str):
            given = true // 2 if given == "/2" else true + int(given)
        raw[at : at + 4] = struct.pack("<I", true if given is None else given)
    (tmp_path / "x.wav").write_bytes(raw)
    values, _ = audio.decode(tmp_path / "x.wav", RATE)
    assert len(values) == RATE
    assert np.abs(values[:, 0] / 32768 - TONE).max() < 0.02


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_open_sizes_of_aiff(tmp_path, size):
    raw = wav(tmp_path / "x.aiff")
    place = raw.index(b"SSND") + 4
    raw[place : place + 4] = struct.pack(">I", size)
    (tmp_path / "x.aiff").write_bytes(raw)
    assert len(audio.decode(tmp_path / "x.aiff", RATE)[0]) == RATE


def test_chunks_behind_the_samples_are_not_samples(tmp_path):
    raw = wav(tmp_path / "x.wav")
    for tail in (b"LIST" + struct.pack("<I", 8) + b"INFOabcd", b"TAG" + bytes(125), b"\0"):
        (tmp_path / "x.wav").write_bytes(bytes(raw) + tail)
        assert len(audio.decode(tmp_path / "x.wav", RATE)[0]) == RATE


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ending", ["wav", "aiff", "flac", "ogg"])
def test_what_is_cut_off_is_listed(tmp_path, ending, share):
    raw = wav(tmp_path / f"x.{ending}")
    (tmp_path / f"x.{ending}").write_bytes(raw[: int(len(raw) * share)])
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", TONE * (i + 1) / 3, RATE)
    source = open_source(str(tmp_path))
    assert len(source) == 2
    assert source.skipped[0]["reason"].split(":")[0] in ("cut off", "damaged", "too short")


@pytest.mark.parametrize("peak", [1.5, 2.0, 100.0])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_above_one_are_not_clipped(tmp_path, peak, subtype):
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", peak * TONE / 0.4, RATE, subtype=subtype)
    source = open_source(str(tmp_path))
    assert not source.skipped
    assert np.abs(source.sequence(0)[:, 0] / 32768 - TONE / 0.4).max() < 0.01
    assert next(n for n in source.notes if n["kind"] == "loud")["count"] == 2


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_what_is_clipped_is_left_out(tmp_path, subtype):
    soundfile.write(tmp_path / "x.wav", np.clip(20 * TONE, -1, 1), RATE, subtype=subtype)
    with pytest.raises(DataError, match="clipped"):
        audio.decode(tmp_path / "x.wav", RATE)


@pytest.mark.parametrize("native", [8000, 11_025, 22_050, 44_100, 48_000, 44_101])
@pytest.mark.parametrize("block", [1000, 5000, 1 << 20])
def test_blocks_give_the_sound_that_is_resampled_at_once(monkeypatch, native, block):
    monkeypatch.setattr(audio, "BLOCK", block)
    signal = np.random.default_rng(0).standard_normal(30_011).astype(np.float32)
    ratio = audio.Fraction(RATE, native).limit_denominator(4096)
    parts = (signal[i : i + 777] for i in range(0, len(signal), 777))
    made = np.concatenate(list(audio._resampled(parts, ratio.numerator, ratio.denominator)))
    whole = resample_poly(signal, ratio.numerator, ratio.denominator)
    assert made.shape == whole.shape
    assert np.abs(made - whole).max() < 1e-4


@pytest.mark.parametrize("rate", [768_001, 20_000_003, 0xFFFFFFF])
def test_rates_that_no_recorder_has_are_refused(tmp_path, rate):
    for name, native in (("odd", rate), ("a", 8000), ("b", 8000)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(native)
            file.writeframes((TONE * 30_000).astype("<i2").tobytes())
    source = open_source(str(tmp_path))
    assert (source.ids, source.rate) == (["a.wav", "b.wav"], 8000)
    assert source.skipped[0]["reason"].startswith("sample rate: ")


def test_a_flac_that_claims_more_than_it_holds_is_listed(tmp_path):
    room = io.BytesIO()
    soundfile.write(room, TONE, RATE, format="FLAC")
    raw = bytearray(room.getvalue())
    raw[21] |= 15
    raw[22:26] = b"\xff" * 4
    (tmp_path / "x.flac").write_bytes(raw)
    with pytest.raises(DataError, match="too long"):
        audio.decode(tmp_path / "x.flac", RATE)


def test_a_sound_that_is_too_long_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 0.5)
    wav(tmp_path / "x.wav")
    with pytest.raises(DataError, match="too long"):
        audio.decode(tmp_path / "x.wav", RATE)


def test_the_rate_is_that_of_most_files_wherever_they_stand(tmp_path):
    for i in range(9):
        rate = 8000 if i % 3 == 1 else 12_000
        soundfile.write(tmp_path / f"{i}.wav", TONE, rate)
    source = open_source(str(tmp_path))
    assert source.rate == 12_000
    assert next(n for n in source.notes if n["kind"] == "resampled")["count"] == 3


@pytest.mark.parametrize("ending", ["caf", "w64", "rf64", "voc", "aifc", "snd"])
def test_what_libsndfile_can_read_is_read(tmp_path, ending):
    form = {"aifc": "AIFF", "snd": "AU"}.get(ending, ending.upper())
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.{ending}", TONE, RATE, format=form, subtype="PCM_16")
    source = open_source(str(tmp_path))
    assert (len(source), source.skipped) == (2, [])
