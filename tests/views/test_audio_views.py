"""Windows and changes of sounds and series."""

from __future__ import annotations

import math

import pytest
import torch
from samples import seeded

from tellapart.errors import ConfigError
from tellapart.views.audio import SequenceViews, whole


def _ramps(lengths):
    values = torch.cat([torch.arange(n) + 1000.0 * i for i, n in enumerate(lengths, 1)])[:, None]
    return {"values": values, "length": torch.tensor(lengths)}


def test_windows_are_cut_inside_and_short_sequences_padded_at_their_end():
    view = SequenceViews(window=8)(_ramps([50, 5, 8]), seeded())
    x, length = view["values"][:, 0], view["length"]
    assert length.tolist() == [8, 5, 8]
    assert (x[0].diff() == 1).all()
    assert 1000 <= float(x[0, 0]) <= 1042
    assert x[1].tolist() == [2000, 2001, 2002, 2003, 2004, 0, 0, 0]
    starts = {
        int(SequenceViews(window=8)(_ramps([50]), seeded(i))["values"][0, 0, 0]) for i in range(400)
    }
    assert starts == set(range(1000, 1043))


def test_the_view_of_evaluation_is_the_whole_sequence():
    view = whole(_ramps([4, 2]))
    assert view["values"][:, 0].tolist() == [[1000, 1001, 1002, 1003], [2000, 2001, 0, 0]]


def test_changes_of_sound_do_what_they_say():
    n, steps = 64, 2048
    t = torch.arange(steps + 1200) / 4000
    wave = torch.sin(2 * math.pi * 500 * t)
    batch = {"values": wave.repeat(n)[:, None], "length": torch.full((n,), len(wave))}
    plain = SequenceViews(window=steps)(batch, seeded())["values"][:, 0]
    loud = SequenceViews(window=steps, gain=6)(batch, seeded())["values"][:, 0]
    ratio = loud.std(1) / plain.std(1)
    assert 10 ** (-6 / 20) <= float(ratio.min()) < 0.6
    assert 1.7 < float(ratio.max()) <= 10 ** (6 / 20) + 1e-3
    noisy = SequenceViews(window=steps, noise=0.5)(batch, seeded())["values"][:, 0]
    assert float((noisy - plain).std() / plain.std()) == pytest.approx(0.5, abs=0.02)
    peaks = (
        torch.fft.rfft(SequenceViews(window=steps, pitch=12)(batch, seeded())["values"][:, 0])
        .abs()
        .argmax(1)
    )
    heard = peaks * 4000 / steps
    assert 245 < float(heard.min()) < 350
    assert 720 < float(heard.max()) < 1005
    masked = SequenceViews(window=steps, time_mask=1)(batch, seeded())["values"][:, 0]
    hidden = (masked.diff(dim=1) == 0).float().mean(1)
    assert float(hidden.max()) < 0.26
    assert float(hidden.mean()) == pytest.approx(0.125, abs=0.04)


def test_band_reject_silences_one_band():
    noise = torch.randn(32 * 4096, generator=seeded())[:, None]
    batch = {"values": noise, "length": torch.full((32,), 4096)}
    spectrum = torch.fft.rfft(
        SequenceViews(window=4096, band_reject=1)(batch, seeded())["values"][:, 0]
    ).abs()
    silent = spectrum < 1e-3
    assert float(silent.float().mean(1).max()) < 0.26
    assert int((silent.int().diff(dim=1) == 1).sum(1).max()) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("window", 1), ("pitch", 30), ("gain", -1), ("band_reject", 2)]
)
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        SequenceViews(**({"window": 8} | {name: value}))


def test_changes_of_a_series_leave_its_level():
    table = 1013 + 5 * torch.randn(4000, 1, generator=seeded())
    batch = {"values": table, "length": torch.tensor([4000])}
    view = SequenceViews(window=1024, gain=3, time_mask=1, band_reject=1, noise=0.1)(
        batch, seeded()
    )["values"]
    assert float((view - 1013).abs().max()) < 60
    assert float(view.mean()) == pytest.approx(1013, abs=1)
