"""Sounds and series: what is read and what is left out, views, the encoder, CPC against a loop, and the whole way."""

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
from torch.nn import functional as F

import tellapart as ta
from tellapart import encoders, objectives, presets
from tellapart.data import audio, kind_of, open_source
from tellapart.encoders import sequence
from tellapart.errors import ConfigError, DataError, MissingExtraError
from tellapart.evaluation import frames
from tellapart.evaluation.baselines import LogMel
from tellapart.objectives import Batch, CPCOptions
from tellapart.training.trainer import Trainer
from tellapart.views.audio import SequenceViews, whole

soundfile = pytest.importorskip("soundfile")
RATE = 4000
SMALL = {"width": 16, "context_width": 16, "kernels": (8, 4), "strides": (4, 2), "window": 1024, "batch_size": 8}


def _random(seed=0):
    return torch.Generator().manual_seed(seed)


def _tone(seconds, pitch, rate=RATE, seed=0):
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * pitch * t) + 0.02 * np.random.default_rng(seed).standard_normal(len(t))


@pytest.fixture
def sounds(tmp_path):
    """Two "speakers", low and high, of 12 sounds each; every sound is two tones one after the other, marked."""
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


# reading --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_sounds_is_read_with_its_labels(sounds):
    assert kind_of(str(sounds)) == "audio"
    source = open_source(str(sounds))
    assert (len(source), source.rate, source.classes, source.kind) == (24, RATE, ["high", "low"], "audio")
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
        ("silent.wav", "silent"), ("short.wav", "too short"), ("clipped.wav", "clipped"), ("cut.wav", "cut off"),
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
    with pytest.raises(DataError, match=r"1 usable sound\(s\)"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match="--sample-rate"):
        open_source(str(tmp_path), sample_rate=3)


def test_series_are_read_and_pieces_with_nan_left_out(tmp_path):
    table = np.random.default_rng(0).standard_normal((6000, 3)).astype(np.float32)
    table[100, 1] = np.nan
    np.save(tmp_path / "a.npy", table)
    source = open_source(str(tmp_path / "a.npy"))
    assert (source.kind, source.channels, source.ids) == ("series", 3, ["a.npy#2000", "a.npy#4000"])
    assert "not finite" in source.skipped[0]["reason"]
    assert np.array_equal(source.sequence(0), table[2000:4000])


def test_a_csv_with_a_heading_is_a_series_and_other_tables_are_errors(tmp_path):
    rows = "\n".join(f"{i},{i * 2}" for i in range(5000))
    (tmp_path / "a.csv").write_text(f"time,speed\n{rows}\n")
    assert open_source(str(tmp_path / "a.csv")).read(torch.tensor([0]))["values"][3].tolist() == [3.0, 6.0]
    (tmp_path / "b.csv").write_text("1,2\n3,x\n")
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


# views ----------------------------------------------------------------------------------------------------------------


def _ramps(lengths):
    values = torch.cat([torch.arange(n) + 1000.0 * i for i, n in enumerate(lengths, 1)])[:, None]
    return {"values": values, "length": torch.tensor(lengths)}


def test_windows_are_cut_inside_and_short_sequences_padded_at_their_end():
    view = SequenceViews(window=8)(_ramps([50, 5, 8]), _random())
    x, length = view["values"][:, 0], view["length"]
    assert length.tolist() == [8, 5, 8]
    assert (x[0].diff() == 1).all()
    assert 1000 <= float(x[0, 0]) <= 1042
    assert x[1].tolist() == [2000, 2001, 2002, 2003, 2004, 0, 0, 0]
    starts = {int(SequenceViews(window=8)(_ramps([50]), _random(i))["values"][0, 0, 0]) for i in range(400)}
    assert starts == set(range(1000, 1043))


def test_the_view_of_evaluation_is_the_whole_sequence():
    view = whole(_ramps([4, 2]))
    assert view["values"][:, 0].tolist() == [[1000, 1001, 1002, 1003], [2000, 2001, 0, 0]]


def test_changes_of_sound_do_what_they_say():
    n, steps = 64, 2048
    t = torch.arange(steps + 1200) / 4000
    wave = torch.sin(2 * math.pi * 500 * t)
    batch = {"values": wave.repeat(n)[:, None], "length": torch.full((n,), len(wave))}
    plain = SequenceViews(window=steps)(batch, _random())["values"][:, 0]
    loud = SequenceViews(window=steps, gain=6)(batch, _random())["values"][:, 0]
    ratio = loud.std(1) / plain.std(1)
    assert 10 ** (-6 / 20) <= float(ratio.min()) < 0.6
    assert 1.7 < float(ratio.max()) <= 10 ** (6 / 20) + 1e-3
    noisy = SequenceViews(window=steps, noise=0.5)(batch, _random())["values"][:, 0]
    assert float((noisy - plain).std() / plain.std()) == pytest.approx(0.5, abs=0.02)
    peaks = torch.fft.rfft(SequenceViews(window=steps, pitch=12)(batch, _random())["values"][:, 0]).abs().argmax(1)
    heard = peaks * 4000 / steps
    assert 245 < float(heard.min()) < 350
    assert 720 < float(heard.max()) < 1005
    masked = SequenceViews(window=steps, time_mask=1)(batch, _random())["values"][:, 0]
    hidden = (masked.diff(dim=1) == 0).float().mean(1)
    assert float(hidden.max()) < 0.26
    assert float(hidden.mean()) == pytest.approx(0.125, abs=0.04)


def test_band_reject_silences_one_band():
    noise = torch.randn(32 * 4096, generator=_random())[:, None]
    batch = {"values": noise, "length": torch.full((32,), 4096)}
    spectrum = torch.fft.rfft(SequenceViews(window=4096, band_reject=1)(batch, _random())["values"][:, 0]).abs()
    silent = spectrum < 1e-3
    assert float(silent.float().mean(1).max()) < 0.26
    assert int((silent.int().diff(dim=1) == 1).sum(1).max()) == 1


@pytest.mark.parametrize(("name", "value"), [("window", 1), ("pitch", 30), ("gain", -1), ("band_reject", 2)])
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        SequenceViews(**({"window": 8} | {name: value}))


# encoder --------------------------------------------------------------------------------------------------------------


def _encoder(**given):
    shared = {"channels": 1, "width": 12, "context_width": 10, "kernels": (8, 4), "strides": (4, 2)}
    return sequence.build(seed=0, **(shared | given))


@pytest.mark.parametrize("context", ["gru", "lstm"])
@pytest.mark.parametrize("norm", ["channel", "batch"])
def test_shapes_of_frames_and_context(context, norm):
    encoder = _encoder(context=context, norm=norm)
    z, c, count = encoder.sequence({"values": torch.randn(3, 1, 160), "length": torch.tensor([160, 80, 17])})
    assert (z.shape, c.shape, count.tolist()) == ((3, 20, 12), (3, 20, 10), [20, 10, 2])
    assert encoder.features(torch.randn(3, 1, 160)).shape == (3, 10)
    assert [m.shape[1] for m in encoder.maps(torch.randn(3, 1, 160))] == [12, 12]


def test_the_papers_strides_make_a_frame_of_160_steps():
    encoder = _encoder(kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2))
    assert encoder.hop == 160
    assert encoder.sequence(torch.randn(1, 1, 20_480))[0].shape[1] == 128


def test_the_context_sees_no_later_frame_and_no_padding():
    encoder = _encoder().eval()
    x = torch.randn(1, 1, 320)
    later = x.clone()
    later[..., 200:] = 5.0
    early = [encoder.sequence(v)[1][:, :23] for v in (x, later)]  # 200 / 8, less the kernels
    torch.testing.assert_close(*early)
    padded = {"values": F.pad(x, (0, 160)), "length": torch.tensor([320])}
    torch.testing.assert_close(encoder.features(padded), encoder.features(x))


def test_an_encoder_is_built_again_from_its_description():
    encoder = _encoder(head_kind="mlp-bn", dim=7)
    again = encoders.rebuild(json.loads(json.dumps(encoder.description)))
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(4, 1, 160)
    assert torch.equal(encoder.eval()(x), again.eval()(x))


# cpc ------------------------------------------------------------------------------------------------------------------


def _cpc(options, encoder, seed=0):
    objective = objectives.build("cpc", options, seed)
    objective.attach(encoder, None)
    return objective


def _by_a_loop(objective, embedded, drawn):
    """Equation 4 of the paper for every step, time and sequence, with the negatives that were drawn."""
    z, c, count = embedded["frames"][:, 0], embedded["context"][:, 0], embedded["count"]
    n, t, width = z.shape
    weights = objective.ahead.weight.view(-1, width, c.shape[2])
    flat = z.reshape(-1, width)
    steps = []
    for k in range(objective.options.first, objective.options.steps + 1):
        losses = []
        for i in range(n):
            for now in range(t - k):
                if now + k >= count[i]:
                    continue
                predicted = weights[k - objective.options.first] @ c[i, now]
                true = torch.exp(z[i, now + k] @ predicted)
                others = [j for j in drawn[i].tolist() if j != i * t + now + k]
                losses.append(-torch.log(true / (true + sum(torch.exp(flat[j] @ predicted) for j in others))))
        steps.append(torch.stack(losses).mean())
    return torch.stack(steps).mean()


@pytest.mark.parametrize("draw", ["batch", "others", "sequence", "label", "label-others"])
def test_cpc_is_the_papers_equation(draw):
    encoder = _encoder()
    objective = _cpc(CPCOptions(steps=3, negatives=9, draw=draw), encoder)
    view = {"values": torch.randn(4, 1, 80), "length": torch.tensor([80, 80, 40, 80])}
    batch = Batch([view], torch.arange(4), torch.tensor([0, 0, 1, 1]))
    embedded = objective.embed(encoder, batch)
    drawn = objective._draw(embedded["frames"].float(), embedded["count"], batch, _random())
    found = objective.loss(embedded, batch, _random()).loss
    torch.testing.assert_close(found, _by_a_loop(objective, embedded, drawn), atol=1e-5, rtol=1e-5)
    owner, frame = drawn // 10, drawn % 10
    assert (frame < embedded["count"][owner]).all()  # no padding
    row = torch.arange(4)[:, None]
    if draw == "sequence":
        assert (owner == row).all()
    if draw.endswith("others"):
        assert (owner != row).all()
    if draw.startswith("label"):
        assert (batch.label[owner] == batch.label[row]).all()


@pytest.mark.parametrize("predictor", ["linear", "transformer"])
def test_cpc_at_chance_and_its_gradient(predictor):
    encoder = _encoder(context_width=12)
    objective = _cpc(CPCOptions(steps=2, negatives=16, draw="others", predictor=predictor), encoder)
    batch = Batch([torch.randn(4, 1, 80)], torch.arange(4))
    out = objective.loss(objective.embed(encoder, batch), batch, _random())
    out.loss.backward()
    assert float(encoder.frames.layers[0].weight.grad.abs().sum()) > 0
    same = {"frames": torch.ones(4, 1, 10, 12), "context": torch.ones(4, 1, 10, 12), "count": torch.full((4,), 10)}
    assert float(objective.loss(same, batch, _random()).loss.detach()) == pytest.approx(objective.chance(4), abs=1e-5)


def test_the_transformer_predictor_sees_no_later_context():
    with pytest.raises(ConfigError, match="4 equal parts"):
        _cpc(CPCOptions(steps=2, predictor="transformer"), _encoder())
    objective = _cpc(CPCOptions(steps=2, predictor="transformer"), _encoder(context_width=12))
    c = torch.randn(2, 1, 10, 12)
    later = c.clone()
    later[:, :, 6:] = 3.0
    torch.testing.assert_close(objective._attended(c)[:, :, :6], objective._attended(later)[:, :, :6])


def test_cpc_wants_frames_and_labels_where_it_reads_them(digits):
    with pytest.raises(ConfigError, match="frames in an order"):
        Trainer("cpc", presets.named("cpc_images").__class__(objective=CPCOptions()), digits)
    encoder = _encoder()
    objective = _cpc(CPCOptions(steps=2, draw="label"), encoder)
    batch = Batch([torch.randn(4, 1, 80)], torch.arange(4))
    with pytest.raises(DataError, match="reads labels"):
        objective.loss(objective.embed(encoder, batch), batch, _random())
    short = Batch([torch.randn(4, 1, 8)], torch.arange(4), torch.zeros(4, dtype=torch.int64))
    embedded = objective.embed(encoder, short)
    with pytest.raises(DataError, match="no sequence"):
        objective.loss(embedded, short, _random())


def test_steps_that_no_sequence_reaches_do_not_count():
    encoder = _encoder()
    objective = _cpc(CPCOptions(steps=8, negatives=16, draw="others"), encoder)
    same = {"frames": torch.ones(4, 1, 10, 12), "context": torch.ones(4, 1, 10, 10), "count": torch.full((4,), 4)}
    out = objective.loss(same, Batch([], torch.arange(4)), _random())
    assert float(out.loss.detach()) == pytest.approx(objective.chance(4), abs=1e-5)


def test_patches_of_images_give_columns_whose_context_looks_up_only(digits):
    encoder = encoders.build("patches", channels=1, size=16, head_kind="none", width=8)
    x = torch.rand(2, 1, 16, 16)
    z, c, count = encoder.sequence(x)
    assert (z.shape, c.shape, count.tolist()) == ((2, 7, 7, 32), (2, 7, 7, 32), [7, 7])
    below = x.clone()
    below[:, :, 12:] = 0.0  # rows of patches 5 and 6 begin at pixel 10 and 12
    other = encoder.sequence(below)[1]
    torch.testing.assert_close(c[:, :, :5], other[:, :, :5])
    assert not torch.allclose(c[:, :, 6], other[:, :, 6])
    torch.testing.assert_close(encoder.features(x), z.mean((1, 2)))
    config = presets.named("cpc_images")
    trainer = Trainer(
        "cpc", config.__class__(**{**vars(config), "steps": 2, "batch_size": 16}), digits.subset(range(64))
    )
    assert all(math.isfinite(step.loss) for step in trainer)


# the whole way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["cpc", "simclr"])
def test_train_resume_judge_search_and_embed_sounds(sounds, tmp_path, cut):
    options = {**SMALL, "threads": 1, "log_every": 2, "save_every": 4}
    whole_run, part = tmp_path / "whole", tmp_path / "part"
    ta.train(cut, data=str(sounds), out=whole_run, steps=8, **options)
    config = dict(options, steps=8)
    trainer_stops = ta.presets.named(f"{cut}_audio")
    settings = type(trainer_stops)(**{**vars(trainer_stops), **config})
    from tellapart.run import Run
    from tellapart.settings import open_for, training_part
    from tellapart.training import session

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
        "cpc", data=str(sounds), out=tmp_path / "run", steps=60, lr=3e-3, threads=1, log_every=5, **SMALL,
        objective={"steps": 4, "negatives": 32, "draw": "batch"},
    )  # fmt: skip
    assert trained.verdict.startswith("learning")


def test_series_train_and_are_judged_without_labels(tmp_path):
    t = np.arange(9000)
    table = np.stack([np.sin(t / 9), np.sin(t / 31)], 1) + 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    np.save(tmp_path / "a.npy", table)
    data = str(tmp_path / "a.npy")
    ta.train("cpc", data=data, out=tmp_path / "run", steps=4, threads=1, width=16, context_width=16, batch_size=4)
    result = ta.evaluate(tmp_path / "run")
    assert "channel statistics" in result["geometry"]
    assert "view_retrieval" in result


def test_data_of_another_kind_are_refused(sounds, tmp_path, photos):
    ta.train("cpc", data=str(sounds), out=tmp_path / "run", steps=2, threads=1, **SMALL)
    with pytest.raises(DataError, match="holds images"):
        ta.evaluate(tmp_path / "run", data=str(photos))
    with pytest.raises(ConfigError, match="has no settings for audio"):
        ta.train("instdisc", data=str(sounds), out=tmp_path / "other")
    with pytest.raises(ConfigError, match="works on images"):
        ta.search(tmp_path / "run", ["low/1.wav"], sheet_path=tmp_path / "a.png")
    with pytest.raises(DataError, match="neither a file"):
        ta.search(tmp_path / "run", ["nothing.wav"])


# log-mel and frames ---------------------------------------------------------------------------------------------------


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
    labels = frames.frame_labels(source, source.ids.index("low/1.wav"), 400, ["a", "b"])
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert frames.has_marks(source)


# what is missing, and real sounds -------------------------------------------------------------------------------------


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
    script = Path(__file__).parent.parent / "scripts" / "prepare_speech.py"
    done = subprocess.run([sys.executable, script, "phones", tmp_path, "12"], capture_output=True, text=True)
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
        np.save(tmp_path / f"b{i}.npy", np.random.default_rng(i).standard_normal((50, 3)).astype(np.float32))
    source = open_source(str(tmp_path))
    assert (source.channels, len(source), len(source.skipped)) == (3, 3, 1)
    assert "most files have 3" in source.skipped[0]["reason"]


def test_changes_of_a_series_leave_its_level():
    table = 1013 + 5 * torch.randn(4000, 1, generator=_random())
    batch = {"values": table, "length": torch.tensor([4000])}
    view = SequenceViews(window=1024, gain=3, time_mask=1, band_reject=1, noise=0.1)(batch, _random())["values"]
    assert float((view - 1013).abs().max()) < 60
    assert float(view.mean()) == pytest.approx(1013, abs=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init": "weights.pt"}, "--init is of images"),
        ({"bn": "split", "norm": "batch"}, "--bn split is of networks on images"),
        ({"strides": (0, 4)}, "1 or more"),
    ],
)
def test_options_that_would_do_nothing_are_refused(sounds, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        ta.train("cpc", data=str(sounds), out=tmp_path / "run", steps=1, threads=1, **(SMALL | options))


def test_labels_of_frames_that_cannot_be_read_cost_only_their_table(sounds, tmp_path):
    ta.train("cpc", data=str(sounds), out=tmp_path / "run", steps=2, threads=1, **SMALL)
    for file in sounds.rglob("*.lab"):
        file.write_text("0 100 a\n")
    result = ta.evaluate(tmp_path / "run")
    assert "frames" not in result
    assert "trained features" in result["scores"]
    with pytest.raises(ConfigError, match="--full works on images"):
        ta.evaluate(tmp_path / "run", full=True)


def test_pieces_of_one_sound_are_held_out_together(tmp_path):
    for i in range(6):
        soundfile.write(tmp_path / f"{i}#x.wav", _tone(45, 300 + 50 * i, 1000), 1000)
    source = open_source(str(tmp_path))
    rest, held = source.hold_out(6)
    assert not {str(rest.file(i)) for i in range(len(rest))} & {str(held.file(i)) for i in range(len(held))}
    assert source.file(1) == tmp_path / "0#x.wav"
