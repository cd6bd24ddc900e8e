"""Detection: scenes with exact boxes, COCO and VOC layouts, detectors and average precision."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tellapart import api, encoders
from tellapart.data import multi_object_scenes
from tellapart.data.detection import open_boxes
from tellapart.errors import ConfigError, DataError
from tellapart.evaluation.detector import (
    PRESETS,
    DetectConfig,
    average_precision,
    detect,
    detector,
    train_detector,
)
from tellapart.runtime.console import Console

ITEMS = np.zeros((3, 28, 28), np.uint8)
ITEMS[0, 4:24, 10:18], ITEMS[1, 10:18, 4:24], ITEMS[2, 6:22, 6:22] = 255, 200, 230
LABELS = np.arange(3)
FAST = DetectConfig(steps=2, batch_size=2, min_size=64, max_size=64, regions=8, proposals=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("coco")
    for split, seed, count in (("train2017", 1, 6), ("val2017", 2, 4)):
        multi_object_scenes.write_coco(
            path,
            split,
            *multi_object_scenes.compose_crowds(ITEMS, LABELS, count=count, seed=seed),
            ["a", "b", "c"],
        )
    return path


def _encoder(name="small-resnet"):
    return encoders.build(name, channels=3, size=32, seed=0, width=8)


def test_scenes_do_not_depend_on_how_many_are_made_and_boxes_are_tight():
    images, boxes, classes = multi_object_scenes.compose_crowds(ITEMS, LABELS, count=300, seed=3)
    few, few_boxes, _ = multi_object_scenes.compose_crowds(ITEMS, LABELS, count=5, seed=3)
    assert np.array_equal(images[:5], few)
    assert all(np.array_equal(a, b) for a, b in zip(boxes[:5], few_boxes, strict=True))
    assert {len(b) for b in boxes} == {1, 2, 3, 4}
    assert set(np.concatenate(classes)) == {0, 1, 2}
    for box in boxes[:20]:
        assert (box[:, :2] >= 0).all()
        assert (box[:, 2:] <= 96).all()
        assert ((box[:, 2:] - box[:, :2]) > 4).all()
        for i in range(len(box)):
            for j in range(i):
                overlap = np.minimum(box[i, 2:], box[j, 2:]) - np.maximum(box[i, :2], box[j, :2])
                assert (overlap <= 0).any()


def test_coco_is_read_as_it_was_written(folder):
    parts = open_boxes(f"coco:{folder}")
    _, boxes, classes = multi_object_scenes.compose_crowds(ITEMS, LABELS, count=6, seed=1)
    assert (len(parts["train"]), len(parts["test"])) == (6, 4)
    assert parts["train"].classes == ["a", "b", "c"]
    assert all(np.array_equal(a, b) for a, b in zip(parts["train"].boxes, boxes, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(parts["train"].labels, classes, strict=True))
    assert parts["train"].image(0).shape == (3, 96, 96)


def _voc(path, box="<xmin>5</xmin><ymin>9</ymin><xmax>24</xmax><ymax>28</ymax>"):
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for i in range(2):
        Image.new("RGB", (60, 40), (i, 200, 0)).save(path / f"JPEGImages/00000{i}.jpg")
        hard = f"<object><name>cat</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"
        (path / f"Annotations/00000{i}.xml").write_text(
            f"<annotation><size><width>60</width><height>40</height></size><object><name>dog</name>"
            f"<difficult>0</difficult><bndbox>{box}</bndbox></object>{hard}</annotation>"
        )
    (path / "ImageSets/Main/trainval.txt").write_text("000000\n")
    (path / "ImageSets/Main/test.txt").write_text("000001\n")
    (path / "ImageSets/Main/dog_test.txt").write_text("000001 1\n")
    return path


def test_voc_counts_from_one_and_marks_the_difficult(tmp_path):
    parts = open_boxes(str(_voc(tmp_path / "VOC2007")))
    train = parts["train"]
    assert train.classes == ["cat", "dog"]
    assert train.boxes[0].tolist() == [[4, 8, 24, 28]] * 2
    assert train.labels[0].tolist() == [1, 0]
    assert train.ignored[0].tolist() == [False, True]
    assert len(parts["test"]) == 1


def test_boxes_outside_their_image_and_other_damage_are_named(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"000000.xml, object 0: the box .* lies outside its image of 60 x 40"
    ):
        open_boxes(
            str(_voc(tmp_path / "v", "<xmin>5</xmin><ymin>9</ymin><xmax>90</xmax><ymax>28</ymax>"))
        )
    about = json.loads((folder / "annotations/instances_train2017.json").read_text())
    for bbox, said in (
        ([90, 0, 20, 5], "annotation 1 of 000000.png.* lies outside"),
        ([5, 5, 0, 4], "has no test"),
    ):
        broken = tmp_path / "c"
        (broken / "annotations").mkdir(parents=True, exist_ok=True)
        about["annotations"][0]["bbox"] = bbox
        (broken / "annotations/instances_train.json").write_text(json.dumps(about))
        with pytest.raises(DataError, match=said):
            open_boxes(str(broken))
    (broken / "annotations/instances_train.json").write_text("{}")
    with pytest.raises(DataError, match="is not COCO's layout"):
        open_boxes(str(broken))
    with pytest.raises(DataError, match="neither annotations"):
        open_boxes(str(tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        open_boxes("coco:nowhere")


def test_average_precision_of_the_truth_is_one_and_of_nothing_zero(folder):
    test = open_boxes(str(folder))["test"]
    truth = [
        {"boxes": torch.from_numpy(b), "labels": torch.from_numpy(c), "scores": torch.ones(len(b))}
        for b, c in zip(test.boxes, test.labels, strict=True)
    ]
    assert average_precision(test, truth) == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}
    none = [{k: v[:0] for k, v in row.items()} for row in truth]
    assert average_precision(test, none)["AP"] == 0.0
    shifted = [row | {"boxes": row["boxes"] + 2} for row in truth]
    scores = average_precision(test, shifted)
    assert scores["AP75"] < scores["AP50"] <= 1.0
    half = dataclasses.replace(test, ignored=[np.arange(len(b)) % 2 == 1 for b in test.boxes])
    assert average_precision(half, truth)["AP"] == 1.0  # finding what is ignored costs nothing


@pytest.mark.parametrize("head", ["fpn", "c4"])
@pytest.mark.parametrize("name", ["small-resnet", "torchvision/resnet18", "timm/resnet18"])
def test_detectors_train_and_detect_on_every_backbone(folder, head, name):
    parts, encoder = open_boxes(str(folder)), _encoder(name)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    model = train_detector(
        detector(encoder, 3, dataclasses.replace(FAST, head=head)), parts["train"], FAST
    )
    found = detect(model, parts["test"])
    assert len(found) == 4
    assert all((f["labels"] >= 0).all() and (f["labels"] < 3).all() for f in found)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


def test_a_detector_learns_its_scenes(folder):
    parts = open_boxes(str(folder))
    size = {"min_size": 96, "max_size": 96, "regions": 32, "flip": 0.0}
    config = dataclasses.replace(FAST, steps=60, batch_size=4, lr=0.04, warmup=10, **size)
    encoder = encoders.build("small-resnet", channels=3, size=32)
    before = average_precision(
        parts["train"], detect(detector(encoder, 3, config), parts["train"])
    )["AP50"]
    model = train_detector(detector(encoder, 3, config), parts["train"], config)
    assert average_precision(parts["train"], detect(model, parts["train"]))["AP50"] > before + 0.05


def test_frozen_stages_and_statistics_do_not_move(folder):
    train = open_boxes(str(folder))["train"]
    config = dataclasses.replace(FAST, frozen_stages=2, freeze_bn=True)
    model = detector(_encoder(), 3, config)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_detector(model, train, config)
    after = model.state_dict()
    body = "backbone.backbone."
    frozen = [k for k in before if k.startswith((f"{body}stem", f"{body}blocks.0")) or "bn" in k]
    assert frozen
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    assert not torch.equal(
        before[f"{body}blocks.2.conv1.weight"], after[f"{body}blocks.2.conv1.weight"]
    )


def test_presets_hold_the_papers_numbers_and_bad_settings_are_errors():
    moco = PRESETS["voc07"]()
    assert (moco.head, moco.steps, moco.batch_size, moco.lr) == ("c4", 24_000, 16, 0.02)
    assert [round(s * moco.steps) for s in moco.lr_steps] == [18_000, 22_001]
    assert PRESETS["voc07-instdisc"]().freeze_bn
    with pytest.raises(ConfigError, match="--frozen-stages 9 of 4 stages"):
        detector(_encoder(), 3, dataclasses.replace(FAST, frozen_stages=9))
    with pytest.raises(ConfigError, match="only a ResNet can be cut"):
        detector(_encoder("timm/mobilenetv3_small_050"), 3, dataclasses.replace(FAST, head="c4"))
    with pytest.raises(ConfigError, match="--steps must be 1 or more"):
        DetectConfig(steps=0)


def test_the_verb_compares_backbones(folder, tmp_path):
    torch.save(_encoder().backbone.state_dict(), tmp_path / "w.pt")
    result = api.detect(
        tmp_path / "w.pt", encoder="small-resnet", width=8, data=str(folder),
        out=tmp_path / "d.json",
        console=Console(quiet=True), **{f.name: getattr(FAST, f.name)
            for f in dataclasses.fields(FAST)},
    )  # fmt: skip
    assert set(result["scores"]) == {"random init", str(tmp_path / "w.pt")}
    assert json.loads((tmp_path / "d.json").read_text())["verdict"].startswith("Best by AP")
