"""Options of adapting a pretrained network: each changes what it should and nothing else."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from tellapart import open_source
from tellapart.encoders import build
from tellapart.encoders.norms import batchnorms
from tellapart.errors import ConfigError, MissingExtraError
from tellapart.training import presets
from tellapart.training.config import TrainConfig
from tellapart.training.resolve import resolve
from tellapart.training.trainer import Trainer


@pytest.fixture(scope="module")
def digits():
    return open_source("digits").split("train")


@pytest.fixture(scope="module")
def weights(digits, tmp_path_factory):
    file = tmp_path_factory.mktemp("start") / "start.pt"
    torch.save(
        build("small-resnet", channels=1, size=16, width=8, seed=7).backbone.state_dict(), file
    )
    return str(file)


def _config(weights, method="simclr", **options):
    base = presets.named(
        f"{method}_digits" if method in ("simclr", "instdisc") else f"{method}_folder"
    )
    given = {"init": weights, "width": 8, "steps": 3, "batch_size": 32, "threads": 1, "lr": 0.05}
    if method == "moco":
        given["objective"] = replace(base.objective, queue=256)
    return replace(base, **given | options)


def _trained(digits, config, method="simclr"):
    trainer = Trainer(method, config, digits)
    before = {n: p.detach().clone() for n, p in trainer.encoder.named_parameters()}
    list(trainer)
    return trainer, before


def test_starting_weights_choose_the_preset_for_adapting(weights):
    for method in ("simclr", "moco", "instdisc", "spread"):
        settings = resolve(method, "photos/", None, None, {"init": weights, "lr": 0.5})
        wanted = presets.named(f"{method}_adapt")
        assert (settings.freeze_bn, settings.ema) == (wanted.freeze_bn, wanted.ema)
        assert settings.lr == 0.5
        assert resolve(method, "photos/", None, None, {}).optimizer == "sgd"
    chosen = resolve("simclr", "photos/", "simclr_folder", None, {"init": weights})
    assert not chosen.freeze_bn


def test_frozen_stages_keep_their_weights_and_statistics(digits, weights):
    trainer, before = _trained(digits, _config(weights, freeze=2))
    stages = trainer.encoder.backbone.stages()
    frozen = {id(p) for stage in stages[:2] for p in stage.parameters()}
    for name, parameter in trainer.encoder.backbone.named_parameters(prefix="backbone"):
        assert torch.equal(parameter, before[name]) == (id(parameter) in frozen), name
    start = torch.load(weights)
    assert torch.equal(stages[0][1].running_mean, start["stem.1.running_mean"])
    last = trainer.encoder.backbone.state_dict()["blocks.2.bn1.running_mean"]
    assert not torch.equal(last, start["blocks.2.bn1.running_mean"])


def test_frozen_statistics_stay_while_the_weights_move(digits, weights):
    trainer, before = _trained(digits, _config(weights, freeze_bn=True))
    start = torch.load(weights)
    for name, value in trainer.encoder.backbone.state_dict().items():
        if "running" in name:
            assert torch.equal(value, start[name])
    assert all(not norm.training for norm in batchnorms(trainer.encoder.backbone))
    assert not torch.equal(
        trainer.encoder.backbone.stem[0].weight, before["backbone.stem.0.weight"]
    )


def test_rates_fall_from_stage_to_stage(digits, weights):
    for optimizer in ("sgd", "adamw", "lars"):
        trainer = Trainer("simclr", _config(weights, layer_decay=0.5, optimizer=optimizer), digits)
        next(iter(trainer))
        rates = {id(p): g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
        stages = trainer.encoder.backbone.stages()
        found = [rates[id(next(stage.parameters()))] for stage in stages]
        assert found == pytest.approx([0.05 * 0.5 ** (3 - i) for i in range(4)])
        assert rates[id(next(trainer.encoder.head.parameters()))] == pytest.approx(0.05)
        assert len(rates) == sum(p.requires_grad for p in trainer.encoder.parameters())


def test_the_average_of_the_weights_is_kept(digits, weights):
    trainer = Trainer("simclr", _config(weights, ema=0.9), digits)
    expected = trainer.encoder.backbone.stem[0].weight.detach().clone()
    for _ in trainer:
        expected = 0.9 * expected + 0.1 * trainer.encoder.backbone.stem[0].weight.detach()
    torch.testing.assert_close(trainer.result.backbone.stem[0].weight, expected)
    assert not torch.equal(trainer.encoder.backbone.stem[0].weight, expected)


def test_the_anchor_keeps_features_near_the_starting_ones(digits, weights):
    images = torch.rand(16, 1, 16, 16)
    start = build("small-resnet", channels=1, size=16, width=8)
    start.backbone.load_state_dict(torch.load(weights))
    moved = {}
    for weight in (0.0, 100.0):
        config = _config(
            weights, anchor=weight, freeze_bn=True, steps=8, optimizer="adamw", lr=1e-2
        )
        trainer, _ = _trained(digits, config)
        start.mean, start.std = trainer.encoder.mean, trainer.encoder.std
        with torch.no_grad():
            a, b = (e.eval().features(images) for e in (start, trainer.result))
        moved[weight] = float(1 - torch.cosine_similarity(a, b).mean())
    assert moved[100.0] < 0.5 * moved[0.0]


@pytest.mark.parametrize("method", ["simclr", "moco", "instdisc", "spread"])
def test_the_anchor_is_the_distance_of_the_features(digits, weights, method):
    trainer = Trainer(method, _config(weights, method, anchor=0.5), digits)
    first = next(iter(trainer))
    assert first.out.logs["anchor"] >= 0
    plain = next(iter(Trainer(method, _config(weights, method), digits)))
    expected = plain.loss + 0.5 * float(first.out.logs["anchor"])
    assert first.loss == pytest.approx(expected, abs=1e-4)


def test_a_resumed_training_keeps_average_and_anchor(digits, weights):
    config = _config(weights, ema=0.9, anchor=1.0, freeze_bn=True, layer_decay=0.8, steps=4)
    whole = Trainer("simclr", config, digits)
    list(whole)
    first = Trainer("simclr", config, digits)
    first.advance()
    first.advance()
    second = Trainer("simclr", config, digits)
    second.load_state({k: v for k, v in first.state().items()})
    list(second)
    for a, b in zip(whole.result.parameters(), second.result.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": 9}, "leaves nothing to train"),
        ({"layer_decay": 0.0}, "--layer-decay"),
        ({"layer_decay": 1.5}, "--layer-decay"),
        ({"ema": 1.0}, "--ema"),
        ({"anchor": -1.0}, "--anchor"),
        ({"anchor": 1.0, "init": None}, "give --init"),
        ({"freeze": -1}, "--freeze"),
        ({"lora": 4, "freeze": 1}, "leave out --freeze"),
    ],
)
def test_impossible_options_are_named(digits, weights, options, message):
    with pytest.raises(ConfigError, match=message):
        Trainer("simclr", _config(weights, **options), digits)


def test_lora_without_peft_names_the_extra(digits, weights, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[lora\]"):
        Trainer("simclr", _config(weights, lora=4), digits)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
def test_lora_trains_its_updates_alone_and_leaves_a_plain_network(digits):
    config = replace(
        TrainConfig(objective=presets.named("simclr_digits").objective), encoder="timm/test_vit",
        image_size=32, steps=2, batch_size=16, threads=1, lora=2, lr=0.1,
    )  # fmt: skip
    source = open_source("digits", image_size=32).split("train")
    trainer = Trainer("simclr", config, source)
    plain = build("timm/test_vit", channels=1, size=32, seed=config.seed)
    list(trainer)
    trained = [n for n, p in trainer.encoder.backbone.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    result = trainer.result.eval()
    assert result.state_dict().keys() == plain.state_dict().keys()
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(result.features(x), trainer.encoder.eval().features(x))
    weight = "backbone.model.blocks.0.attn.qkv.weight"
    assert not torch.equal(result.state_dict()[weight], plain.state_dict()[weight])


@pytest.mark.parametrize(("side", "large"), [(48, False), (64, False), (80, True), (300, True)])
def test_the_plan_names_a_pretrained_start_for_photographs(tmp_path, side, large):
    from PIL import Image

    from tellapart.training.plan import plan

    random = torch.Generator().manual_seed(0)
    for i in range(4):
        pixels = torch.randint(0, 255, (side, side, 3), generator=random, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path))
    config = replace(presets.named("simclr_folder"), steps=1, batch_size=4, threads=1)
    text = plan(Trainer("simclr", config, source), 1.0)
    assert ("a pretrained network" in text) == large
