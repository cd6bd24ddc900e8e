"""Videos: frames at a rate, ids with their seconds, clips kept together in splits."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tellapart.data import kind_of, open_source
from tellapart.data.kinds import given
from tellapart.errors import ConfigError, DataError, MissingExtraError

av = pytest.importorskip("av")


def clip(path, seed, seconds=3):
    """A video of noise, 10 frames a second."""
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(10 * seconds):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())


def test_a_video_gives_a_frame_each_interval(tmp_path):
    clip(tmp_path / "clip.mp4", 0)
    spec = given(tmp_path / "clip.mp4", fps=2)
    assert kind_of(spec) == "images"
    source = open_source(spec)
    assert source.ids == [f"clip.mp4#{s:.1f}s" for s in (0, 0.5, 1, 1.5, 2, 2.5)]
    assert len(open_source(str(tmp_path / "clip.mp4"))) == 3  # one a second


def test_the_frames_of_a_clip_are_in_one_split(tmp_path):
    for i in range(6):
        clip(tmp_path / f"{i}.mp4", i, seconds=2)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    source = open_source(str(tmp_path))
    assert [s["path"] for s in source.skipped] == ["broken.mp4"]
    clips = {
        part: {source.ids[i].partition("#")[0] for i in rows}
        for part, rows in source.splits.items()
    }
    assert clips["train"]
    assert clips["test"]
    assert not clips["train"] & clips["test"]
    assert set(source.groups) == {f"{i}.mp4" for i in range(6)}


@pytest.mark.parametrize("fps", [0, -1, "x"])
def test_a_wrong_rate_is_refused(tmp_path, fps):
    clip(tmp_path / "clip.mp4", 0, seconds=1)
    with pytest.raises(ConfigError, match="--fps must lie above 0"):
        open_source(f"{tmp_path / 'clip.mp4'}#fps={fps}")


def test_frames_of_other_data_and_columns_of_videos_are_refused(tmp_path):
    with pytest.raises(DataError, match="leave out --fps"):
        open_source(f"{tmp_path}#fps=2")
    clip(tmp_path / "clip.mp4", 0, seconds=1)
    with pytest.raises(DataError, match="no columns; leave out image"):
        open_source(f"{tmp_path / 'clip.mp4'}#image=file")


def test_pyav_is_named_where_it_is_missing(tmp_path, monkeypatch):
    clip(tmp_path / "clip.mp4", 0, seconds=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[video\]'"):
        open_source(str(tmp_path / "clip.mp4"))
