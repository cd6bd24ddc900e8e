"""Damaged vectors, weights, run folders and annotations: used, or refused in words."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import hostile_corpus as corpus
import numpy as np
import pytest
import torch
from hostile_corpus import damaged, odd_json, random_of, save
from hostile_harness import ROUNDS, call

from tellapart.evaluation import compare_detectors
from tellapart.training.run import Run

TRAINING = (
    "--data", "digits", "--steps", "2", "--save-every", "1", "--log-every", "1", "--batch-size",
    "64", "--dim", "8", "--width", "8", "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with an evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert call("train", "instdisc", "--out", folder, *TRAINING).status == 0
    score = {"value": 0.9, "low": 0.8, "high": 1.0, "note": ""}
    evaluation = {
        "protocol": "eval-v2", "verdict": "good", "headline": "a", "baselines": ["b"],
        "comparisons": [], "counts": {"train": 5, "test": 5},
        "scores": {"a": {"knn@200": score}, "b": {"knn@200": score}},
        "geometry": {"a": {"std": 0.5}}, "fingerprint": "f", "step": 2,
    }  # fmt: skip
    Run.open(folder).save_evaluation(evaluation)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder of six pictures."""
    folder = tmp_path_factory.mktemp("few")
    for i in range(6):
        save(folder / f"{i}.png", corpus.picture("RGB-png", random_of("few", i)))
    return folder


# vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10 * ROUNDS))
@pytest.mark.parametrize("ending", ["npz", "parquet", "images.npz", "images.npy"])
def test_damaged_vectors_end_in_words(tmp_path, ending, seed):
    random = random_of(ending, "vectors", seed)
    path = tmp_path / f"v.{ending}"
    save(path, damaged(corpus.vectors(ending, random), seed, random))
    if ending.startswith("images") or seed % 3 == 0:
        call("inspect", path, "--json", keep=(path,))
    elif seed % 3 == 1:
        call("eval", path, "--out", tmp_path / "eval.json", "--json", keep=(path,))
    else:
        call("search", path, "item 3", "--json", keep=(path,))


ARRAYS = {
    "no ids": {"vectors": np.eye(12)},
    "text": {"vectors": np.array([["a", "b"]] * 4)},
    "not finite": {"vectors": np.full((9, 3), np.nan)},
    "infinite": {"vectors": np.full((9, 3), np.inf)},
    "huge": {"vectors": np.full((9, 3), 1e300)},
    "complex": {"vectors": np.full((9, 3), 1j)},
    "empty": {"vectors": np.zeros((0, 0))},
    "no width": {"vectors": np.zeros((9, 0))},
    "one row": {"vectors": np.zeros((1, 4))},
    "scalar": {"vectors": np.float32(3)},
    "three axes": {"vectors": np.zeros((4, 4, 4, 4, 4))},
    "zeros": {"vectors": np.zeros((40, 4)), "labels": np.arange(40) % 4},
    "few labels": {"vectors": np.eye(12), "labels": np.arange(3)},
    "labels of text": {"vectors": np.eye(12), "labels": np.array(["a", "b", ""] * 4)},
    "labels of floats": {"vectors": np.eye(12), "labels": np.linspace(0, 1, 12)},
    "labels that are large": {
        "vectors": np.eye(12), "labels": np.full(12, 2**63, np.uint64) + np.arange(12, dtype="u8"),
    },
    "labels below": {"vectors": np.eye(12), "labels": np.full(12, -(2**62))},
    "labels not finite": {"vectors": np.eye(12), "labels": np.full(12, np.nan)},
    "no labels at all": {"vectors": np.eye(12), "labels": np.full(12, -1)},
    "about": {"vectors": np.eye(12), "about": "["},
    "about a list": {"vectors": np.eye(12), "about": "[1]"},
    "about a number": {"vectors": np.eye(12), "about": '{"provenance": 5, "labelled": 7}'},
    "ids of numbers": {"vectors": np.eye(12), "ids": np.arange(12)},
    "equal ids": {"vectors": np.eye(12), "ids": np.array(["a"] * 12)},
    "ids with codes": {"vectors": np.eye(12), "ids": np.array(["\x1b[2J\n"] * 12)},
    "other names": {"a": np.eye(12), "b": np.eye(12)},
    "nothing": {},
    "labels of minus two": {"vectors": np.eye(12), "labels": np.full(12, -2)},
}  # fmt: skip


@pytest.mark.parametrize("verb", ["eval", "search", "inspect"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_odd_arrays_end_in_words(tmp_path, kind, verb):
    path = tmp_path / "v.npz"
    np.savez(path, **ARRAYS[kind])
    words = {"eval": ("--out", tmp_path / "eval.json"), "search": ("0",), "inspect": ()}[verb]
    ended = call(verb, path, *words, "--json", keep=(path,))
    if kind in ("nothing", "text", "complex", "scalar", "not finite", "labels of floats"):
        assert ended.status == 2, ended.out[:500]


# weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(16 * ROUNDS))
@pytest.mark.parametrize("ending", ["pt", "old.pt", "safetensors"])
def test_damaged_weights_end_in_words(tmp_path, few, ending, seed):
    random = random_of(ending, "weights", seed)
    path = tmp_path / f"w.{ending}"
    save(path, damaged(corpus.weights(ending, random), seed, random))
    out = tmp_path / "v.npz"
    call("embed", path, "--data", few, "--out", out, "--width", 8, keep=(path, few))


class _Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.system, (f"touch {self.place}",)


def _pickles(place):
    """Files that run a command where a plain `torch.load` or `pickle.load` reads them."""
    evil = _Evil(place)
    yield "object.pt", lambda path: torch.save({"state_dict": {"conv1.weight": evil}}, path)
    yield "old.pth", lambda path: torch.save(evil, path, _use_new_zipfile_serialization=False)
    yield "plain.ckpt", lambda path: path.write_bytes(pickle.dumps({"model": evil}))
    yield "v.npz", lambda path: np.savez(path, vectors=np.array([evil] * 4, object))
    yield "x.npy", lambda path: np.save(path, np.array([evil] * 4, object), allow_pickle=True)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("verb", ["embed", "eval", "init"])
def test_no_pickle_runs(tmp_path, few, number, verb):
    name, write = list(_pickles(tmp_path / "PWNED"))[number]
    path = tmp_path / name
    write(path)
    words = {
        "embed": ("embed", path, "--data", few, "--out", tmp_path / "o.npz"),
        "eval": ("eval", path, "--data", few, "--out", tmp_path / "e.json"),
        "init": ("train", "instdisc", "--init", path, "--out", tmp_path / "r", *TRAINING),
    }[verb]
    if name.endswith(".npz") and verb == "eval":
        words = ("eval", path, "--out", tmp_path / "e.json")
    if name.endswith(".npy"):
        words = ("inspect", path)
    assert call(*words, keep=(path, few)).status == 2
    assert not (tmp_path / "PWNED").exists()


# run folders -------------------------------------------------------------------------------------

FILES = (
    "run.json", "encoder/config.json", "encoder/preprocessor.json", "eval.json", "metrics.jsonl",
    "checkpoints/last.pt", "encoder/model.safetensors",
)  # fmt: skip
VERBS = (
    lambda run, out: ("compare", run),
    lambda run, out: ("embed", run, "--data", "digits", "--out", out / "v.npz"),
    lambda run, out: ("train", "instdisc", "--out", run, "--resume", *TRAINING),
    lambda run, out: ("export", run, "--out", out / "encoder"),
    lambda run, out: ("report", run, "--out", out / "report.html"),
)


@pytest.mark.parametrize("seed", range(16 * ROUNDS))
@pytest.mark.parametrize("name", FILES)
def test_damaged_runs_end_in_words(tmp_path, finished, name, seed, monkeypatch):
    """Half of the inputs have no digests, which an attacker would write anew."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    random = random_of(name, "run", seed)
    if seed % 2:
        about = json.loads((run / "run.json").read_text())
        about.pop("files", None)
        about.pop("metrics", None)
        (run / "run.json").write_text(json.dumps(about))
    raw = (run / name).read_bytes()
    made = odd_json if name.endswith(".json") and seed % 4 else damaged
    new = made(raw, random) if made is odd_json else damaged(raw, seed // 2, random)
    (run / name).write_bytes(new)
    others = tuple(p for p in run.rglob("*") if p.is_file() and p != run / name)
    words = VERBS[seed % len(VERBS)](run, tmp_path)
    call(*words, keep=() if "--resume" in words else others)
    assert not list(tmp_path.rglob("PWNED"))


# annotations -------------------------------------------------------------------------------------


def _coco(root, random):
    """Two parts of three pictures each in the layout of COCO; the annotations of the first."""
    for part in ("train2017", "val2017"):
        for i in range(3):
            save(root / part / f"{i}.png", corpus.picture("RGB-png", random))
        about = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": 30, "height": 24} for i in range(3)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": i % 3, "category_id": 1 + i % 2, "iscrowd": 0,
                 "bbox": [1, 2, 9, 8], "area": 72}
                for i in range(4)
            ],
        }  # fmt: skip
        save(root / f"annotations/instances_{part}.json", json.dumps(about).encode())
    return root / "annotations/instances_train2017.json"


def _voc(root, random):
    """Four pictures in the layout of VOC; the annotations of the first."""
    for i in range(4):
        save(root / f"JPEGImages/{i}.jpg", corpus.picture("RGB-jpg", random))
        box = "<xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>12</ymax>"
        size = "<size><width>30</width><height>24</height><depth>3</depth></size>"
        thing = f"<object><name>cat</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
        text = f"<annotation><filename>{i}.jpg</filename>{size}{thing}</annotation>"
        save(root / f"Annotations/{i}.xml", text.encode())
    for part, names in (("trainval", "0\n1\n"), ("test", "2\n3\n")):
        save(root / f"ImageSets/Main/{part}.txt", names.encode())
    return root / "Annotations/0.xml"


@pytest.fixture
def network(tmp_path_factory):
    return save(tmp_path_factory.mktemp("w") / "w.pt", corpus.weights("pt", random_of(0)))


def _read_all(subject, boxes, config, *, supervised, console):
    """In place of training detectors: read every picture and box."""
    for part in boxes.values():
        for row in range(len(part)):
            part.image(row)
            assert np.isfinite(part.boxes[row]).all()
            assert ((part.labels[row] >= 0) & (part.labels[row] < len(part.classes))).all()
    return {"verdict": "", "rows": {}}


def _use_boxes(monkeypatch, network, root, out):
    monkeypatch.setattr(compare_detectors, "compare_as_backbones", _read_all)
    monkeypatch.setattr(compare_detectors, "print_detection", lambda *_: None)
    return call(
        "detect", network, "--width", 8, "--data", root, "--out", out / "d.json", keep=(root,)
    )


@pytest.mark.parametrize("seed", range(60 * ROUNDS))
def test_odd_coco_ends_in_words(tmp_path, monkeypatch, network, seed):
    random = random_of("coco", seed)
    path = _coco(tmp_path / "coco", random)
    raw = path.read_bytes()
    save(path, odd_json(raw, random) if seed % 6 else damaged(raw, seed // 6, random))
    _use_boxes(monkeypatch, network, tmp_path / "coco", tmp_path)


ODD_TEXT = (
    "", "-1", "1e400", "nan", "inf", "x", "9" * 400, "0", "\u0663", "<a/>", "2.5", "&amp;", "-9e9",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(40 * ROUNDS))
def test_odd_voc_ends_in_words(tmp_path, monkeypatch, network, seed):
    random = random_of("voc", seed)
    path = _voc(tmp_path / "voc", random)
    if seed % 8 == 7:
        path = tmp_path / "voc/ImageSets/Main/trainval.txt"
    text = path.read_text()
    if seed % 2 and path.suffix == ".xml":
        old = ["<xmin>2<", "<width>30<", "<name>cat<", "<height>24<", "<difficult>0<", "<ymax>12<"]
        place = old[int(random.integers(len(old)))]
        new = ODD_TEXT[int(random.integers(len(ODD_TEXT)))]
        text = text.replace(place, f"{place[: place.index('>') + 1]}{new}<", 1)
        path.write_text(text)
    else:
        path.write_bytes(damaged(text.encode(), seed // 2, random))
    _use_boxes(monkeypatch, network, tmp_path / "voc", tmp_path)


def test_entities_of_xml_are_not_expanded_without_bound(tmp_path, monkeypatch, network):
    path = _voc(tmp_path / "voc", random_of("lol"))
    lines = ['<!DOCTYPE a [<!ENTITY a0 "lol">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)]
    path.write_text("\n".join([*lines, "]>"]) + path.read_text().replace(">cat<", ">&a11;<"))
    assert _use_boxes(monkeypatch, network, tmp_path / "voc", tmp_path).status == 2
