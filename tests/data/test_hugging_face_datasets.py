"""Data sets of Hugging Face: objects, saved folders, streams, and the hub without a network."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tellapart.data import kind_of, open_source
from tellapart.data import kinds as names
from tellapart.errors import DataError, MissingExtraError

datasets = pytest.importorskip("datasets")


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "PNG")
    return {"bytes": raw.getvalue(), "path": None}


def pictures(count=10, start=0):
    features = datasets.Features(
        {"kind": datasets.ClassLabel(names=["zebra", "ant"]), "picture": datasets.Image()}
    )
    rows = {
        "kind": [i % 2 for i in range(count)],
        "picture": [png(start + i) for i in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_dataset_keeps_the_names_of_its_classes():
    data = pictures()
    assert kind_of(data) == "images"
    source = open_source(data)
    assert list(source.classes) == ["zebra", "ant"]
    assert source.labels.tolist() == [0, 1] * 5
    assert np.array_equal(source.image(4), np.asarray(data[4]["picture"]))


@pytest.mark.parametrize("how", ["object", "folder"])
def test_the_splits_of_a_dataset_dict_are_kept(tmp_path, how):
    data = datasets.DatasetDict({"train": pictures(), "test": pictures(4, start=50)})
    if how == "folder":
        data.save_to_disk(str(tmp_path / "saved"))
        data = str(tmp_path / "saved")
    source = open_source(data)
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 10, "test": 4}


def test_one_saved_dataset_is_a_folder_of_data(tmp_path):
    pictures().save_to_disk(str(tmp_path / "one"))
    assert kind_of(str(tmp_path / "one")) == "images"
    assert len(open_source(str(tmp_path / "one"))) == 10


def test_sentences_are_found_by_type():
    data = datasets.Dataset.from_dict({"review": [f"review {i}" for i in range(6)]})
    source = open_source(data)
    assert source.kind == "text"
    assert source.text(2) == "review 2"


def test_a_stream_is_read_and_the_bound_is_stated():
    stream = pictures().to_iterable_dataset()
    source = open_source(stream)
    assert len(source) == 10
    assert any("stream" in note["text"] for note in source.notes)
    assert open_source(stream).fingerprint == source.fingerprint


def test_the_hub_without_a_network_is_one_error(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(DataError, match=r"cannot be read from the Hugging Face hub .*save_to_disk"):
        open_source("hf://user/name")
    with pytest.raises(DataError, match="hf://user/name"):
        open_source("hf://name")


def test_datasets_is_named_where_it_is_missing(tmp_path, monkeypatch):
    pictures().save_to_disk(str(tmp_path / "one"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellapart\[datasets\]'"):
        open_source(str(tmp_path / "one"))


def test_columns_of_a_dataset_are_chosen_by_name():
    made = names.given(pictures(), columns="image=picture,label=kind")
    assert list(open_source(made).classes) == ["zebra", "ant"]
