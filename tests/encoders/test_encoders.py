"""encoders: the pinned small-resnet, stems, channels, maps, and that they normalise themselves."""

from __future__ import annotations

import copy

import pytest
import torch

from tellapart import encoders
from tellapart.encoders import pretrained
from tellapart.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("small-resnet", 64),
        ("timm/resnet18", 512),
        ("torchvision/resnet18", 512),
        ("torchvision/mobilenet_v3_small", 1024),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes_for_any_number_of_channels(name, width, channels):
    encoder = encoders.build(name, channels=channels, size=32, dim=16).eval()
    x = torch.rand(2, channels, 32, 32)
    z = encoder(x)
    assert encoder.features(x).shape == (2, width)
    assert z.shape == (2, 16)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    maps = encoder.maps(x)
    assert all(m.ndim == 4 and len(m) == 2 for m in maps)
    assert [m.shape[2] for m in maps] == sorted((m.shape[2] for m in maps), reverse=True)


def test_small_resnet_is_the_pinned_one():
    encoder = encoders.build("small-resnet", channels=3, size=32, width=16)
    assert [tuple(m.shape[1:]) for m in encoder.eval().maps(torch.rand(1, 3, 32, 32))] == [
        (16, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)
    ]  # fmt: skip
    assert sum(p.numel() for p in encoder.backbone.parameters()) == 77_392


def test_small_resnet_pools_before_the_relu_without_changing_a_bit():
    short = encoders.build("small-resnet", channels=3, size=32, width=8).backbone
    whole = copy.deepcopy(short)
    x, weight = torch.rand(4, 3, 32, 32), torch.randn(4, 32)
    a, b = short(x), whole.maps(x)[-1].mean((2, 3))
    assert torch.equal(a, b)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    assert all(
        torch.equal(p.grad, q.grad)
        for p, q in zip(short.parameters(), whole.parameters(), strict=True)
    )
    assert all(torch.equal(p, q) for p, q in zip(short.buffers(), whole.buffers(), strict=True))


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_small_images_get_the_cifar_stem(name):
    small = encoders.build(name, channels=3, size=32).backbone.model
    large = encoders.build(name, channels=3, size=96).backbone.model
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, torch.nn.Identity)
    assert large.conv1.kernel_size == (7, 7)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = encoders.build("small-resnet", channels=1, size=16, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    b = encoders.build("small-resnet", channels=1, size=16, seed=3).state_dict()
    c = encoders.build("small-resnet", channels=1, size=16, seed=4).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_bytes_and_floats_give_the_same_features():
    encoder = encoders.build("small-resnet", channels=3, size=32).eval()
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(encoder.features(x), encoder.features(x.float() / 255))


@pytest.mark.parametrize("kind", ["linear", "mlp", "linear-bn", "mlp-bn", "mlp3-bn"])
def test_heads(kind):
    encoder = encoders.build("small-resnet", channels=3, size=32, head_kind=kind, dim=24)
    assert encoder(torch.rand(8, 3, 32, 32)).shape == (8, 24)


def test_a_bn_head_spreads_the_embeddings_of_a_fresh_network():
    x = torch.rand(64, 3, 32, 32)
    plain = encoders.build("small-resnet", channels=3, size=32)(x).detach().mean(0).norm()
    centred = (
        encoders.build("small-resnet", channels=3, size=32, head_kind="linear-bn")(x)
        .detach()
        .mean(0)
        .norm()
    )
    assert float(plain) > 0.8
    assert float(centred) < 0.3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("small-resent", "small-resnet"),
        ("timm/resnet81", "resnet"),
        ("torchvision/resnet19", "resnet1"),
        ("resnet18", "resnet18"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, hint):
    with pytest.raises(ConfigError, match=f"did you mean '[^']*{hint}"):
        encoders.build(name, channels=3, size=32)


def test_of_a_long_list_only_the_nearest_are_shown():
    with pytest.raises(ConfigError, match=r"nearest: resnet18, .* are known") as caught:
        encoders.build("timm/resnet18x", channels=3, size=32)
    assert len(str(caught.value)) < 200


def test_an_unknown_head_is_named():
    with pytest.raises(ConfigError, match="unknown head"):
        encoders.build("small-resnet", channels=3, size=32, head_kind="liner")


def test_a_three_layer_head_has_one_layer_more():
    two, three = (encoders.head(kind, 10, 4) for kind in ("mlp-bn", "mlp3-bn"))
    assert [sum(isinstance(m, torch.nn.Linear) for m in h) for h in (two, three)] == [2, 3]


def test_selective_kernel_networks_come_through_timm():
    encoder = encoders.build("timm/skresnet18", channels=3, size=32, head_kind="mlp3-bn", dim=16)
    assert encoder.backbone.small_stem
    assert encoder(torch.rand(4, 3, 32, 32)).shape == (4, 16)


def test_batchnorm_in_groups_is_that_of_each_group_alone():
    whole = encoders.build(
        "small-resnet", channels=3, size=16, head_kind="linear-bn", dim=8
    ).train()
    x = torch.rand(12, 3, 16, 16)
    parts = torch.cat([whole(part) for part in x.split(4)])
    whole.bn_rows = 4
    torch.testing.assert_close(whole(x), parts)
    whole.eval()
    plain = whole(x)
    whole.bn_rows = None
    assert torch.equal(whole(x), plain)


def test_project_is_the_head_before_the_sphere():
    encoder = encoders.build("small-resnet", channels=3, size=16, dim=8).eval()
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(torch.nn.functional.normalize(encoder.project(x), dim=1), encoder(x))


# starting weights ---------------------------------------------------------------------------------

SHARED = {
    "encoder": "small-resnet",
    "width": 8,
    "channels": 3,
    "size": 32,
    "dim": 16,
    "head_kind": "mlp-bn",
    "seed": 1,
}


@pytest.fixture
def trained(tmp_path):
    """A run's encoder folder, of another head and normalisation than what starts from it."""
    from tellapart.training.run import Run

    made = encoders.build(
        "small-resnet", channels=3, size=32, width=8, dim=4, mean=torch.rand(3), std=torch.rand(3)
    )
    about = {
        "encoder": "small-resnet",
        "width": 8,
        "channels": 3,
        "size": 32,
        "dim": 4,
        "head_kind": "linear",
    }
    (tmp_path / "run").mkdir()
    Run(tmp_path / "run", {}).save_encoder(made, about)
    return tmp_path / "run", made


def test_weights_of_a_run_bring_backbone_width_and_normalisation(trained):
    folder, made = trained
    assert pretrained.describe(str(folder)) == {"encoder": "small-resnet", "width": 8}
    for init in (folder, folder / "encoder"):
        fresh = pretrained.start(str(init), **SHARED)
        x = torch.rand(3, 3, 32, 32)
        torch.testing.assert_close(fresh.eval().features(x), made.eval().features(x))
        assert fresh.dim == 16


def test_weights_of_a_file_fill_the_backbone(trained, tmp_path):
    folder, made = trained
    torch.save({"state_dict": made.backbone.state_dict()}, tmp_path / "weights.pt")
    for init in (tmp_path / "weights.pt", folder / "encoder" / "model.safetensors"):
        fresh = pretrained.start(str(init), **SHARED)
        for a, b in zip(fresh.backbone.parameters(), made.backbone.parameters(), strict=True):
            assert torch.equal(a, b)


def test_files_of_weights_bring_their_network_stem_and_width(trained, tmp_path):
    import torchvision

    from tellapart.training.presets import simclr_folder
    from tellapart.training.resolve import resolve

    folder, _ = trained
    file = folder / "encoder" / "model.safetensors"
    assert pretrained.describe(str(file)) == {"encoder": "small-resnet", "width": 8}
    assert resolve("simclr", "photos/", None, None, {"init": str(file)}).width == 8
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    settings = resolve(
        "simclr", "photos/", None, simclr_folder(), {"init": str(tmp_path / "theirs.pt")}
    )
    assert settings.encoder == "torchvision/resnet18"
    fresh = pretrained.start(
        settings.init, **SHARED | {"encoder": settings.encoder}
    )  # at 32 px the stem is theirs still
    assert not fresh.backbone.small_stem
    assert torch.equal(fresh.backbone.model.conv1.weight, theirs.conv1.weight)
    torch.testing.assert_close(
        fresh.mean.flatten(), torch.tensor([0.485, 0.456, 0.406])
    )  # not that of the data
    gray = pretrained.start(settings.init, **SHARED | {"encoder": settings.encoder, "channels": 1})
    assert gray(torch.rand(2, 1, 32, 32)).shape == (2, SHARED["dim"])


def test_weights_that_do_not_fit_or_are_not_there_are_named(trained, tmp_path):
    folder, _ = trained
    with pytest.raises(ConfigError, match="neither timm/NAME"):
        pretrained.start(str(tmp_path / "nothing"), **SHARED)
    with pytest.raises(ConfigError, match="does not fit the encoder"):
        pretrained.start(str(folder / "encoder" / "model.safetensors"), **SHARED | {"width": 16})
    with pytest.raises(ConfigError, match=r"reads 3 channels; the data have 1"):
        pretrained.start(str(folder), **SHARED | {"channels": 1})
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        pretrained.start(str(tmp_path / "junk.pt"), **SHARED)
    with pytest.raises(ConfigError, match="did you mean"):
        pretrained.start("timm/resnet81", **SHARED)


def test_a_pretrained_backbone_brings_its_stem_and_normalisation(monkeypatch):
    """timm's weights cannot be fetched here; a model that timm makes without them stands in."""
    import timm

    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained, **more: create(name, pretrained=False, **more),
    )
    fresh = pretrained.start("timm/resnet18", **SHARED)
    assert fresh.backbone.model.conv1.kernel_size == (7, 7)
    assert not fresh.backbone.small_stem
    torch.testing.assert_close(fresh.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_a_file_brings_its_normalisation_or_takes_that_of_the_data(trained, tmp_path):
    folder, made = trained
    fresh = pretrained.start(str(folder / "encoder" / "model.safetensors"), **SHARED)
    torch.testing.assert_close(fresh.mean, made.mean)
    torch.save(made.backbone.state_dict(), tmp_path / "bare.pt")
    fresh = pretrained.start(
        str(tmp_path / "bare.pt"), **SHARED, mean=torch.full((3,), 0.1), std=torch.full((3,), 0.2)
    )
    torch.testing.assert_close(fresh.mean.flatten(), torch.full((3,), 0.1))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{}", "does not describe an encoder of tellapart"),
        ("config.json", b"{", "does not describe an encoder of tellapart"),
        ("model.safetensors", b"junk", "cannot be read as weights"),
    ],
)
def test_damaged_starting_weights_are_named(trained, name, content, said):
    folder, _ = trained
    (folder / "encoder" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        pretrained.start(str(folder), **SHARED)
