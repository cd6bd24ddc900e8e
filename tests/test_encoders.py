"""encoders: the pinned small-resnet, stems, channels, maps, and that they normalise themselves."""

from __future__ import annotations

import pytest
import torch

from tellapart import encoders
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


@pytest.mark.parametrize("kind", ["linear", "mlp", "linear-bn", "mlp-bn"])
def test_heads(kind):
    encoder = encoders.build("small-resnet", channels=3, size=32, head_kind=kind, dim=24)
    assert encoder(torch.rand(8, 3, 32, 32)).shape == (8, 24)


def test_a_bn_head_spreads_the_embeddings_of_a_fresh_network():
    x = torch.rand(64, 3, 32, 32)
    plain = encoders.build("small-resnet", channels=3, size=32)(x).detach().mean(0).norm()
    centred = encoders.build("small-resnet", channels=3, size=32, head_kind="linear-bn")(x).detach().mean(0).norm()
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


def test_an_unknown_head_is_named():
    with pytest.raises(ConfigError, match="unknown head"):
        encoders.build("small-resnet", channels=3, size=32, head_kind="liner")
