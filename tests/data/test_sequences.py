"""Sounds and series: what is read and what is left out, the encoder, and the whole way."""

from __future__ import annotations

import ctypes.util
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import small_sequence_encoder
from torch.nn import functional as F

import tellapart as ta
from tellapart import encoders
from tellapart.data import audio, kind_of, open_source
from tellapart.errors import ConfigError, DataError, MissingExtraError
from tellapart.evaluation import frame_probe
from tellapart.evaluation.baselines import LogMel
from tellapart.training import presets
from tellapart.training.trainer import Trainer

soundfile = pytest.importorskip("soundfile")
RATE = 4000
SMALL = {
    "width": 16,
    "context_width": 16,
    "kernels": (8, 4),
    "strides": (4, 2),
    "window": 1024,
    "batch_size": 8,
}


def _tone(seconds, pitch, rate=RATE, seed=0):
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * pitch * t) + 0.02 * np.random.default_rng(seed).standard_normal(
        len(t)
    )


@pytest.fixture
def sounds(tmp_path):
    """Two "speakers", low and high, of 12 sounds each; each sound is two labelled tones in turn."""
    for speaker, low in (("low", 200), ("high", 900)):
        folder = tmp_path / "sounds" / speaker
        folder.mkdir(parents=True)
        for i in range(12):
            first, second = (low, low * 1.5) if i % 2 else (low * 1.5, low)
            parts = [_tone(0.4, first, seed=i), _tone(0.4, second, seed=100 + i)]
            soundfile.write(folder / f"{i}.wav", np.concatenate(parts), RATE)
            names = ["a", "b"] if i % 2 else ["b", "a"]
            lines = f"0.0\t0.4\t{names[0]}\n0.4\t0.8\t{names[1]}\n"
            (folder / f"{i}.lab").write_text(lines)
    return tmp_path / "sounds"


# reading ------------------------------------------------------------------------------------------


def test_a_folder_of_sounds_is_read_with_its_labels(sounds):
    assert kind_of(str(sounds)) == "audio"
    source = open_source(str(sounds))
    assert (len(source), source.rate, source.classes, source.kind) == (
        24,
        RATE,
        ["high", "low"],
        "audio",
    )
    batch = source.read(torch.tensor([0, 5]))
    assert batch["values"].dtype == torch.int16
    assert batch["length"].tolist() == [3200, 3200]
    alone = source.read(torch.tensor([5]))["values"]
    assert torch.equal(batch["values"][3200:], alone)


def test_formats_rates_channels_and_widths_become_one(tmp_path):
    wave = _tone(0.5, 440, 16_000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], 1), 16_000)
    soundfile.write(tmp_path / "eight.wav", wave, 16_000, subtype="PCM_U8")
    soundfile.write(tmp_path / "a.flac", wave, 16_000)
    soundfile.write(tmp_path / "a.ogg", wave, 16_000)
    soundfile.write(tmp_path / "float.wav", _tone(0.5, 440, 8000), 8000, subtype="FLOAT")
    source = open_source(str(tmp_path))
    assert not source.skipped
    assert source.rate == 16_000
    reference = source.sequence(source.ids.index("stereo.wav"))[:, 0].astype(float)
    for name in ("eight.wav", "a.flac"):
        other = source.sequence(source.ids.index(name))[:, 0].astype(float)
        assert len(other) == len(reference)
        assert np.corrcoef(reference, other)[0, 1] > 0.99
    spectrum = np.abs(np.fft.rfft(source.sequence(source.ids.index("float.wav"))[:, 0]))
    assert abs(spectrum.argmax() / 0.5 - 440) < 5  # the pitch survives a change of rate


def test_what_cannot_be_used_is_left_out_counted_and_listed(tmp_path):
    soundfile.write(tmp_path / "good.wav", _tone(0.5, 440), RATE)
    soundfile.write(tmp_path / "fine.wav", _tone(0.5, 660), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "short.wav", _tone(0.05, 440), RATE)
    soundfile.write(tmp_path / "clipped.wav", np.clip(20 * _tone(0.5, 440), -1, 1), RATE)
    raw = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_bytes(b"this is not a sound")
    source = open_source(str(tmp_path))
    assert sorted(source.ids) == ["fine.wav", "good.wav"]
    reasons = {s["path"]: s["reason"] for s in source.skipped}
    for name, word in (
        ("silent.wav", "silent"), ("short.wav", "too short"), ("clipped.wav", "clipped"),
        ("cut.wav", "cut off"),
        ("empty.wav", "empty"), ("text.mp3", "not a sound"),
    ):  # fmt: skip
        assert word in reasons[name]


def test_long_sounds_are_cut_into_pieces_that_stay_in_one_split(tmp_path):
    soundfile.write(tmp_path / "long.wav", _tone(50, 440, 1000), 1000)
    soundfile.write(tmp_path / "short.wav", _tone(1, 440, 1000), 1000)
    source = open_source(str(tmp_path))
    assert source.ids == ["long.wav#0", "long.wav#16.666", "long.wav#33.333", "short.wav"]
    assert source.seconds(1)[0] == pytest.approx(16.666)
    assert source.lengths.sum() == 51_000


def test_without_sounds_or_with_one_there_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="holds no sounds"):
        open_source(f"audio:{tmp_path}")
    soundfile.write(tmp_path / "one.wav", _tone(0.5, 440), RATE)
    with pytest.raises(DataError, match="1 usable sound;"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match="--sample-rate"):
        open_source(str(tmp_path), sample_rate=3)


def test_series_are_read_and_pieces_with_nan_left_out(tmp_path):
    table = np.random.default_rng(0).standard_normal((6000, 3)).astype(np.float32)
    table[100, 1] = np.nan
    np.save(tmp_path / "a.npy", table)
    source = open_source(str(tmp_path / "a.npy"))
    assert (source.kind, source.channels) == ("series", 3)
    assert len(source) > 80  # one series is cut into enough items to learn from
    assert len(source.skipped) == 1
    assert "not finite" in source.skipped[0]["reason"]
    assert np.array_equal(source.sequence(0), table[: len(source.sequence(0))])
    by_piece = open_source(str(tmp_path / "a.npy"), piece=2000)
    assert by_piece.ids == ["a.npy#2000", "a.npy#4000"]
    assert np.array_equal(by_piece.sequence(0), table[2000:4000])


def test_a_csv_with_a_heading_is_a_series_and_other_tables_are_errors(tmp_path):
    rows = "\n".join(f"{i},{i * 2}" for i in range(5000))
    (tmp_path / "a.csv").write_text(f"time,speed\n{rows}\n")
    source = open_source(str(tmp_path / "a.csv"))
    assert source.read(torch.tensor([0]))["values"][3].tolist() == [6.0]
    assert source.step_seconds == 1
    (tmp_path / "b.csv").write_text("a,b\ny,x\nz,w\n")
    with pytest.raises(DataError, match="not a table of numbers"):
        open_source(str(tmp_path / "b.csv"))
    np.save(tmp_path / "c.npy", np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match="steps, channels"):
        open_source(str(tmp_path / "c.npy"))


def test_marks_that_are_none_are_an_error(tmp_path):
    (tmp_path / "a.lab").write_text("0.1\t0.2\n")
    with pytest.raises(DataError, match="line 1"):
        audio.read_marks(tmp_path / "a.wav")
    assert audio.read_marks(tmp_path / "b.wav") == []


# encoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["gru", "lstm"])
@pytest.mark.parametrize("norm", ["channel", "batch"])
def test_shapes_of_frames_and_context(context, norm):
    encoder = small_sequence_encoder(context=context, norm=norm)
    z, c, count = encoder.sequence(
        {"values": torch.randn(3, 1, 160), "length": torch.tensor([160, 80, 17])}
    )
    assert (z.shape, c.shape, count.tolist()) == ((3, 20, 12), (3, 20, 10), [20, 10, 2])
    assert encoder.features(torch.randn(3, 1, 160)).shape == (3, 10)
    assert [m.shape[1] for m in encoder.maps(torch.randn(3, 1, 160))] == [12, 12]


def test_the_papers_strides_make_a_frame_of_160_steps():
    encoder = small_sequence_encoder(kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2))
    assert encoder.hop == 160
    assert encoder.sequence(torch.randn(1, 1, 20_480))[0].shape[1] == 128


def test_the_context_sees_no_later_frame_and_no_padding():
    encoder = small_sequence_encoder().eval()
    x = torch.randn(1, 1, 320)
    later = x.clone()
    later[..., 200:] = 5.0
    early = [encoder.sequence(v)[1][:, :23] for v in (x, later)]  # 200 / 8, less the kernels
    torch.testing.assert_close(*early)
    padded = {"values": F.pad(x, (0, 160)), "length": torch.tensor([320])}
    torch.testing.assert_close(encoder.features(padded), encoder.features(x))


def test_an_encoder_is_built_again_from_its_description():
    encoder = small_sequence_encoder(head_kind="mlp-bn", dim=7)
    again = encoders.rebuild(json.loads(json.dumps(encoder.description)))
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(4, 1, 160)
    assert torch.equal(encoder.eval()(x), again.eval()(x))


# the whole way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["cpc", "simclr"])
def test_train_resume_judge_search_and_embed_sounds(sounds, tmp_path, cut):
    options = {**SMALL, "threads": 1, "log_every": 2, "save_every": 4}
    whole_run, part = tmp_path / "whole", tmp_path / "part"
    ta.train(cut, data=str(sounds), out=whole_run, steps=8, **options)
    config = dict(options, steps=8)
    trainer_stops = presets.named(f"{cut}_audio")
    settings = type(trainer_stops)(**{**vars(trainer_stops), **config})
    from tellapart.training import session
    from tellapart.training.resolve import open_for, training_part
    from tellapart.training.run import Run

    source = open_for(str(sounds), settings)
    trainer = Trainer(cut, settings, training_part(source, settings))
    run = Run.create(part, session.manifest(cut, settings, source, trainer.source))
    for step in trainer:
        if step.number == 4:
            session.save(run, trainer)
            break
    run.update(status="interrupted", step=4)
    ta.train(cut, data=str(sounds), out=part, resume=True, steps=8, **options)
    first, second = (p / "encoder" / "model.safetensors" for p in (whole_run, part))
    assert first.read_bytes() == second.read_bytes()
    result = ta.evaluate(whole_run)
    assert {"log-mel means", "random init", "trained features"} <= result["scores"].keys()
    assert {"log-mel", "trained, context", "trained, frames"} <= result["frames"]["scores"].keys()
    assert result["frames"]["counts"]["labels"] == 2
    found = ta.search(whole_run, [str(sounds / "low" / "3.wav"), "high/2.wav"], k=3)
    assert found[0][0]["id"] == "low/3.wav"
    assert found[0][0]["similarity"] > 0.999
    assert ta.embed(whole_run, out=tmp_path / "e.npz").vectors.shape == (24, 16)
    assert "no labels used" in (whole_run / "encoder" / "README.md").read_text()


def test_cpc_learns_tones_and_says_so(sounds, tmp_path):
    trained = ta.train(
        "cpc", data=str(sounds), out=tmp_path / "run", steps=60, lr=3e-3, threads=1, log_every=5,
        **SMALL,
        objective={"steps": 4, "negatives": 32, "draw": "batch"},
    )  # fmt: skip
    assert trained.verdict.startswith("learning")


def test_series_train_and_are_judged_without_labels(tmp_path):
    t = np.arange(9000)
    table = np.stack([np.sin(t / 9), np.sin(t / 31)], 1) + 0.1 * np.random.default_rng(
        0
    ).standard_normal((9000, 2))
    np.save(tmp_path / "a.npy", table)
    data = str(tmp_path / "a.npy")
    ta.train(
        "cpc",
        data=data,
        out=tmp_path / "run",
        steps=4,
        threads=1,
        width=16,
        context_width=16,
        batch_size=4,
    )
    result = ta.evaluate(tmp_path / "run")
    assert "channel statistics" in result["geometry"]
    assert "view_retrieval" in result


def test_data_of_another_kind_are_refused(sounds, tmp_path, photos):
    ta.train("cpc", data=str(sounds), out=tmp_path / "run", steps=2, threads=1, **SMALL)
    with pytest.raises(DataError, match="holds images"):
        ta.evaluate(tmp_path / "run", data=str(photos))
    with pytest.raises(ConfigError, match="has no settings for audio"):
        ta.train("instdisc", data=str(sounds), out=tmp_path / "other")
    with pytest.raises(ConfigError, match="requires images"):
        ta.search(tmp_path / "run", ["low/1.wav"], sheet_path=tmp_path / "a.png")
    with pytest.raises(DataError, match="neither a file"):
        ta.search(tmp_path / "run", ["nothing.wav"])


# log-mel and frames -------------------------------------------------------------------------------


def test_log_mel_puts_a_tone_into_its_band():
    mel = LogMel(16_000)
    for pitch in (300, 1000, 4000):
        wave = torch.sin(2 * math.pi * pitch * torch.arange(16_000) / 16_000)[None, None]
        bands, count = mel.frames({"values": wave, "length": torch.tensor([16_000])})
        assert (bands.shape, count.tolist()) == ((1, 100, 40), [100])
        top = 2595 * math.log10(1 + 8000 / 700)
        expected = 2595 * math.log10(1 + pitch / 700) / top * 41 - 1
        assert abs(int(bands[0, 50].argmax()) - expected) <= 1


def test_frames_are_labelled_at_their_middle(sounds):
    source = open_source(str(sounds))
    labels = frame_probe.frame_labels(source, source.ids.index("low/1.wav"), 400, ["a", "b"])
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert frame_probe.has_marks(source)


# what is missing, and real sounds -----------------------------------------------------------------


def test_a_missing_decoder_is_named_with_its_command(sounds, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[audio\]'"):
        open_source(str(sounds))


def test_the_prompts_of_asterisk_are_read():
    folder = Path("/usr/share/asterisk/sounds")
    speakers = [p for p in folder.glob("*_*_*") if p.is_dir()] if folder.is_dir() else []
    if not speakers:
        pytest.skip("apt-get install asterisk-core-sounds-en-wav")
    source = open_source(str(speakers[0]))
    assert source.rate == 8000
    assert len(source) > 400
    assert all(s["reason"] for s in source.skipped)


def test_spoken_sentences_come_with_their_phonemes(tmp_path):
    if not ctypes.util.find_library("espeak-ng"):
        pytest.skip("apt-get install espeak-ng")
    script = Path(__file__).parents[2] / "scripts" / "prepare_speech.py"
    done = subprocess.run(
        [sys.executable, script, "phones", tmp_path, "12"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    source = open_source(f"audio:{tmp_path}")
    assert {"train", "test"} == source.splits.keys()
    marks = audio.read_marks(tmp_path / source.ids[0])
    assert len(marks) > 5
    assert marks[-1][1] <= source.seconds(0)[1] + 0.05
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(marks))


def test_files_cut_off_in_other_containers_are_left_out(tmp_path):
    wave = _tone(3, 440, 16_000)
    for name in ("a.ogg", "a.aiff"):
        soundfile.write(tmp_path / name, wave, 16_000)
        raw = (tmp_path / name).read_bytes()
        assert len(audio.decode(tmp_path / name, 16_000)[0]) == 48_000
        (tmp_path / name).write_bytes(raw[: len(raw) // 2])
        with pytest.raises(DataError, match="cut off"):
            audio.decode(tmp_path / name, 16_000)
    coarse = np.clip(20 * _tone(1, 440, 16_000), -1, 1)
    soundfile.write(tmp_path / "coarse.wav", coarse, 16_000, subtype="PCM_U8")
    with pytest.raises(DataError, match="clipped"):
        audio.decode(tmp_path / "coarse.wav", 16_000)


def test_the_commonest_number_of_channels_stays(tmp_path):
    np.save(tmp_path / "a_index.npy", np.zeros((50, 4), np.float32))
    for i in range(3):
        np.save(
            tmp_path / f"b{i}.npy",
            np.random.default_rng(i).standard_normal((50, 3)).astype(np.float32),
        )
    source = open_source(str(tmp_path))
    assert (source.channels, len(source), len(source.skipped)) == (3, 3, 1)
    assert "most files have 3" in source.skipped[0]["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init": "weights.pt"}, "--init requires images"),
        ({"bn": "split", "norm": "batch"}, "--bn split requires an image encoder"),
        ({"strides": (0, 4)}, "1 or more"),
    ],
)
def test_options_that_would_do_nothing_are_refused(sounds, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        ta.train(
            "cpc", data=str(sounds), out=tmp_path / "run", steps=1, threads=1, **(SMALL | options)
        )


def test_labels_of_frames_that_cannot_be_read_cost_only_their_table(sounds, tmp_path):
    ta.train("cpc", data=str(sounds), out=tmp_path / "run", steps=2, threads=1, **SMALL)
    for file in sounds.rglob("*.lab"):
        file.write_text("0 100 a\n")
    result = ta.evaluate(tmp_path / "run")
    assert "frames" not in result
    assert "trained features" in result["scores"]
    with pytest.raises(ConfigError, match="--full requires images"):
        ta.evaluate(tmp_path / "run", full=True)


def test_pieces_of_one_sound_are_held_out_together(tmp_path):
    for i in range(6):
        soundfile.write(tmp_path / f"{i}#x.wav", _tone(45, 300 + 50 * i, 1000), 1000)
    source = open_source(str(tmp_path))
    rest, held = source.hold_out(6)
    assert not {str(rest.file(i)) for i in range(len(rest))} & {
        str(held.file(i)) for i in range(len(held))
    }
    assert source.file(1) == tmp_path / "0#x.wav"
