"""Python objects as data: what each becomes, its labels, its fingerprint, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import tellapart as ta
from tellapart.data import ImageSource, SequenceSource, TextSource, kind_of, open_source
from tellapart.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (12, 20, 20, 3), np.uint8)
SERIES = RANDOM.standard_normal((12, 40, 2)).astype(np.float32)
NAMES = ["cat", "dog", "cow"] * 4


class Dataset(torch.utils.data.Dataset):
    """A map-style dataset over a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def pictures():
    return [Image.fromarray(image) for image in IMAGES]


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255,
        IMAGES / 255,
        pictures(),
        list(IMAGES),
        Dataset(pictures()),
        Dataset([(picture, 1) for picture in pictures()]),
        Dataset([{"image": picture, "label": "a"} for picture in pictures()]),
        Dataset([(torch.from_numpy(image).permute(2, 0, 1),) for image in IMAGES]),
        torch.utils.data.TensorDataset(torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255),
    ],
)
def test_every_form_of_the_same_images_has_the_same_pixels(data):
    assert kind_of(data) == "images"
    source = open_source(data)
    assert isinstance(source, ImageSource)
    assert source.image_size == 20
    assert np.array_equal(np.stack([source.image(i) for i in range(12)]), IMAGES)


@pytest.mark.parametrize("data", [SERIES, torch.from_numpy(SERIES), list(SERIES), Dataset(SERIES)])
def test_floats_of_two_or_three_axes_are_series(data):
    source = open_source(data)
    assert isinstance(source, SequenceSource)
    assert source.kind == kind_of(data) == "series"
    assert np.array_equal(source.sequence(5), SERIES[5])
    assert open_source(SERIES[:, :, 0]).channels == 1


def test_strings_are_sentences():
    source = open_source(["a cat sees", "a dog runs", "the bird"])
    assert isinstance(source, TextSource)
    assert source.text(1) == "a dog runs"


def test_paths_a_frame_and_a_path_object_read_files(photos):
    pandas = pytest.importorskip("pandas")
    files = sorted(photos.rglob("*.png"))
    whole = open_source(str(photos))
    assert open_source(photos).fingerprint == whole.fingerprint
    for data in (files, [str(f) for f in files]):
        assert len(open_source(data)) == 24
    frame = pandas.DataFrame({"path": files, "label": [f.parent.name for f in files]})
    source = open_source(frame)
    assert list(source.classes) == ["blue", "green", "red"]
    assert set(source.splits) == {"train", "test"}
    frame["split"] = ["test"] * 4 + ["train"] * 20
    assert len(open_source(frame).split("test")) == 4


def test_labels_are_classes_and_whole_numbers_keep_their_values():
    named = open_source((IMAGES, NAMES))
    assert [named.classes[i] for i in named.labels] == NAMES
    numbers = np.array([0, 5, 11, -1] * 3)
    source = open_source((torch.from_numpy(IMAGES), numbers))
    assert source.labels.tolist() == numbers.tolist()
    assert source.classes[11] == "11"
    assert set(source.splits) == {"train", "test"}


def test_the_fingerprint_follows_contents_and_labels():
    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    prints = [
        open_source(data).fingerprint
        for data in (IMAGES, IMAGES.copy(), changed, (IMAGES, NAMES), (IMAGES, NAMES[::-1]))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_large_pictures_are_reduced_and_sizes_may_differ():
    large = [
        Image.fromarray(RANDOM.integers(0, 256, (h, w, 3), np.uint8))
        for h, w in ((300, 200), (150, 400), (500, 500))
    ]
    source = open_source(large, image_size=32)
    assert source.image_size == 32
    assert [min(source.image(i).shape[:2]) for i in range(3)] == [37, 37, 37]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_uint8_images_of_an_array_file(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, IMAGES)
    else:
        np.savez(path, images=IMAGES, labels=np.array(NAMES))
    assert kind_of(str(path)) == "images"
    source = open_source(str(path))
    assert np.array_equal(source.image(7), IMAGES[7])
    assert list(source.classes) == ([] if suffix == ".npy" else ["cat", "cow", "dog"])
    np.save(tmp_path / "table.npy", SERIES[0])
    assert kind_of(str(tmp_path / "table.npy")) == "series"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (5, "int is not data"),
        ({"a": 1}, "dict is not data"),
        (iter([1, 2]), "is not data"),
        (np.zeros(7), "is not a data set"),
        (np.zeros((4, 5, 5, 7), np.uint8), "1 or 3 channels"),
        (np.full((4, 5, 5, 3), 3.0), "float in 0..1"),
        (np.zeros((2, 2, 2, 2, 2)), "neither images"),
        ((IMAGES, NAMES[:4]), "is not data|no known|is neither|series"),
        ([IMAGES[0]], "2 or more"),
        ([np.zeros((3, 2)), np.zeros((3, 4))], "must agree"),
        ([np.zeros((3, 2)), np.full((3, 2), np.nan)], "not finite"),
        (["a", "  "], "is empty"),
        ([object(), object()], "is not data"),
    ],
)
def test_anything_else_is_one_clear_error(data, words):
    with pytest.raises(DataError, match=words):
        open_source(data)


def test_a_run_on_an_array_resumes_with_the_same_data_and_asks_for_it_again(tmp_path):
    options = {"batch_size": 4, "threads": 1, "image_size": 16}
    out = tmp_path / "run"
    ta.train("simclr", data=(IMAGES, NAMES), out=out, steps=2, **options)
    again = ta.train("simclr", data=(IMAGES, NAMES), out=out, steps=2, resume=True, **options)
    assert not again.trained
    with pytest.raises(ta.TellapartError, match="other contents"):
        ta.train("simclr", data=(IMAGES[::-1], NAMES), out=out, steps=2, resume=True, **options)
    with pytest.raises(DataError, match="pass the same data again"):
        ta.evaluate(out)
    assert ta.evaluate(out, data=(IMAGES, NAMES), out=tmp_path / "eval.json")["scores"]
    found = ta.embed(out, data=IMAGES, out=tmp_path / "e.npz")
    assert len(found) == 12


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(12, dtype=np.uint64) % 3 + np.uint64(2**63),
        [2**63 + i % 3 for i in range(12)],
        [10**30 + i % 3 for i in range(12)],
        [str(2**64 + i % 3) for i in range(12)],
        ["²", "٣", "x"] * 4,
        np.arange(12) % 3 + (2**63 - 10),
    ],
    ids=["uint64", "ints", "huge", "text", "other digits", "int64"],
)
def test_labels_that_int64_cannot_hold_are_classes_by_name(labels, tmp_path):
    """Never "no label", whether they come as an object, in an .npz, or in a list of files."""
    expected = sorted({str(n) for n in (labels.tolist() if hasattr(labels, "tolist") else labels)})
    source = open_source((IMAGES, labels))
    assert (list(source.classes), int((source.labels < 0).sum())) == (expected, 0)
    names = [str(n) for n in (labels.tolist() if hasattr(labels, "tolist") else labels)]
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    for separator, file in ((",", "list.csv"), ("\t", "list.tsv")):
        rows = [f"{i}.png{separator}{name}" for i, name in enumerate(names)]
        (tmp_path / file).write_text(f"path{separator}label\n" + "\n".join(rows))
        source = open_source(str(tmp_path / file))
        assert (list(source.classes), int((source.labels < 0).sum())) == (expected, 0)
    if isinstance(labels, np.ndarray):
        np.savez(tmp_path / "x.npz", x=IMAGES, y=labels)
        source = open_source(str(tmp_path / "x.npz"))
        assert (list(source.classes), int((source.labels < 0).sum())) == (expected, 0)
