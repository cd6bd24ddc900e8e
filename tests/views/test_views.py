"""Views: identity, agreement with torchvision, properties of hue, documented distributions."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms.v2 import functional as tv

from tellapart.errors import ConfigError
from tellapart.views import affine, colour
from tellapart.views.images import ImageViews, centre_view

NEUTRAL = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0}


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _images(n=6, c=3, h=32, w=32, seed=0):
    return torch.randint(0, 256, (n, c, h, w), generator=_generator(seed), dtype=torch.uint8)


def _adjust(x, **given):
    n = len(x)
    ones, zeros = torch.ones(n), torch.zeros(n)
    values = {
        "brightness": ones,
        "contrast": ones,
        "saturation": ones,
        "hue": zeros,
        "gray": zeros.bool(),
    }
    space = given.pop("hue_space", "hsv")
    values |= {k: torch.as_tensor(v).expand(n) for k, v in given.items()}
    return colour.adjust(x, **values, hue_space=space)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_neutral_views_are_the_image_exactly(channels):
    x = _images(c=channels)
    assert torch.equal(ImageViews(32, **NEUTRAL)(x, _generator()), x.float() / 255)
    assert torch.equal(centre_view(x, 32), x.float() / 255)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([1, 3, 4]))
def test_views_stay_in_range_and_are_a_function_of_the_generator(seed, n, channels):
    views = ImageViews(
        24,
        rotation=20,
        translation=0.1,
        blur=0.5,
        solarize=0.5,
        sobel=0.3,
        cutout=0.5,
        noise=0.1,
        area=(0.1, 1),
    )
    x = _images(n, channels, seed=seed % 1000)
    first, again = views(x, _generator(seed)), views(x, _generator(seed))
    assert first.shape == (n, channels, 24, 24)
    assert torch.equal(first, again)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_a_view_does_not_depend_on_how_many_are_made_at_once(photos, monkeypatch):
    """All that is random is drawn before: blocks of the cache's size give what one block gives."""
    from tellapart.data import open_source

    views = ImageViews(
        24, rotation=20, translation=0.1, blur=0.5, solarize=0.5, sobel=0.3, cutout=0.5
    )
    for x in (_images(7), open_source(str(photos), image_size=24).read(torch.arange(6))):
        whole = views(x, _generator())
        monkeypatch.setattr("tellapart.views.images.CACHED", 2 * 24 * 24)
        torch.testing.assert_close(views(x, _generator()), whole, atol=1e-5, rtol=0)
        monkeypatch.undo()


def test_every_item_gets_parameters_of_its_own():
    same = _images(1).expand(16, -1, -1, -1)
    out = ImageViews(32)(same, _generator()).flatten(1)
    assert float(torch.pdist(out).min()) > 0.1


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 1.0), st.sampled_from(["brightness", "contrast", "saturation"]))
def test_colour_agrees_with_torchvision(factor, name):
    """Factors up to 1 leave [0, 1] nowhere, so that torchvision's clamp has nothing to do."""
    x = _images().float() / 255
    wanted = getattr(tv, f"adjust_{name}")(x, factor)
    torch.testing.assert_close(_adjust(x, **{name: factor}), wanted, atol=2e-3, rtol=0)


def test_colour_in_torchvisions_order_with_its_clamps_noted():
    """Compare unclipped pixels only: torchvision clips after each operation, tellapart once."""
    x = (_images().float() / 255) * 0.3 + 0.2
    wanted = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(x, 1.3), 1.2), 0.7)
    torch.testing.assert_close(
        _adjust(x, brightness=1.3, contrast=1.2, saturation=0.7), wanted, atol=2e-3, rtol=0
    )


def test_grayscale_agrees_with_torchvision():
    x = _images().float() / 255
    torch.testing.assert_close(_adjust(x, gray=True), tv.rgb_to_grayscale(x, 3), atol=1e-4, rtol=0)


def test_hue_in_yiq_keeps_gray_and_luma():
    turns = torch.tensor([0.0, 1.0, -0.25, 0.1, 0.5])
    matrix = colour.hue_rotation(turns).double()
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(
        matrix[:2], eye.expand(2, 3, 3), atol=1e-5, rtol=0
    )  # nothing, and a full turn
    gray = torch.full((3,), 0.4, dtype=torch.float64)
    torch.testing.assert_close(matrix @ gray, gray.expand(5, 3), atol=1e-5, rtol=0)
    luma = torch.tensor(colour.LUMA, dtype=torch.float64)
    torch.testing.assert_close(luma @ matrix, luma.expand(5, 3), atol=1e-5, rtol=0)
    both = colour.hue_rotation(torch.tensor([0.35])).double()[0]
    torch.testing.assert_close(
        matrix[3] @ colour.hue_rotation(torch.tensor([0.25])).double()[0], both, atol=1e-5, rtol=0
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_hue_in_hsv_is_torchvisions(turn, seed):
    x = _images(seed=seed).float() / 255
    torch.testing.assert_close(_adjust(x, hue=turn), tv.adjust_hue(x, turn), atol=2e-5, rtol=0)


def test_hue_in_hsv_keeps_gray_black_and_white_and_a_full_turn_is_nothing():
    x = torch.tensor([0.0, 0.4, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    torch.testing.assert_close(colour.turn_hue(x, torch.tensor([0.1, 0.3, 0.5])), x)
    x = _images().float() / 255
    torch.testing.assert_close(colour.turn_hue(x, torch.ones(6)), x, atol=2e-6, rtol=0)


@pytest.mark.parametrize("turn", [0.1, -0.1, 0.25])
@pytest.mark.parametrize("rgb", [(0.6, 0.3, 0.3), (0.3, 0.6, 0.4), (0.4, 0.3, 0.6)])
def test_hue_in_yiq_turns_the_same_way_and_about_as_far(rgb, turn):
    def hue(x):
        return colorsys.rgb_to_hsv(*x.flatten().tolist())[0]

    x = torch.tensor(rgb).view(1, 3, 1, 1)
    ours, theirs = hue(_adjust(x, hue=turn, hue_space="yiq")), hue(tv.adjust_hue(x, turn))
    assert abs((ours - theirs + 0.5) % 1 - 0.5) < 0.08


def test_crops_have_the_area_and_aspect_promised():
    n = 20_000
    side = torch.full((n,), 400)
    boxes = affine.crop_boxes(side, side, (0.2, 0.6), (3 / 4, 4 / 3), _generator()).double()
    top, left, h, w = boxes.unbind(1)
    area = (h * w / 160_000).numpy()
    aspect = (w / h).log().numpy()
    assert stats.kstest(area, stats.uniform(0.2, 0.4).cdf).statistic < 0.015
    low = math.log(3 / 4)
    assert stats.kstest(aspect, stats.uniform(low, -2 * low).cdf).statistic < 0.015
    place = (top / (400 - h).clamp_min(1)).numpy()
    assert stats.kstest(place, stats.uniform(0, 1).cdf).statistic < 0.02
    assert bool(((left >= 0) & (left + w <= 400) & (top >= 0) & (top + h <= 400)).all())


def test_crops_are_distributed_as_torchvisions():
    n, theirs = 3000, []
    torch.manual_seed(0)
    for _ in range(n):
        h, w = _torchvision_crop(60, 100)
        theirs.append(h * w)
    ours = affine.crop_boxes(
        torch.full((n,), 60), torch.full((n,), 100), (0.08, 1.0), (3 / 4, 4 / 3), _generator()
    )
    assert stats.ks_2samp((ours[:, 2] * ours[:, 3]).numpy(), np.array(theirs)).pvalue > 1e-3


def _torchvision_crop(height, width):
    from torchvision.transforms import RandomResizedCrop

    _, _, h, w = RandomResizedCrop.get_params(
        torch.zeros(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3]
    )
    return h, w


def test_impossible_aspects_fall_back_to_the_middle():
    boxes = affine.crop_boxes(
        torch.tensor([10]), torch.tensor([400]), (1.0, 1.0), (0.75, 4 / 3), _generator()
    )
    assert boxes.tolist() == [[0, 193, 10, 13]]


@pytest.mark.parametrize("size", [32, 64])
def test_crop_and_flip_agree_with_torchvision(size):
    """Both the batched path (32) and the one with antialiasing (64), on crops that are enlarged."""
    x = _images(4, 3, size, size)
    boxes = torch.tensor(
        [
            [2, 3, size - 8, size - 6],
            [0, 0, size, size],
            [5, 1, size // 2, size // 2],
            [1, 0, 20, 30],
        ]
    )
    flip = torch.tensor([False, True, False, True])
    out = affine.resample(x, boxes, flip, size)
    for image, (t, left, h, w), mirrored, found in zip(x, boxes.tolist(), flip, out, strict=True):
        wanted = tv.resized_crop(image.float() / 255, t, left, h, w, [size, size], antialias=False)
        wanted = wanted.flip(2) if mirrored else wanted
        inner = (
            slice(None),
            slice(2, -2),
            slice(2, -2),
        )  # at the rim grid_sample may see past the crop
        torch.testing.assert_close(found[inner], wanted[inner], atol=6e-3, rtol=0)


def test_a_strong_shrink_is_antialiased():
    """Stripes of one pixel become gray, not stripes again."""
    stripes = torch.zeros(1, 1, 32, 256, dtype=torch.uint8)
    stripes[..., ::2] = 255
    stripes = stripes.repeat(1, 1, 8, 1)
    out = affine.resample(stripes, torch.tensor([[0, 0, 256, 256]]), torch.tensor([False]), 32)
    assert float((out - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize("size", [32, 64])
def test_rotation_and_translation_go_where_they_say(size):
    x = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    x[..., size // 2 - 2 : size // 2 + 2, -6:-2] = 255  # a spot at three o'clock
    whole = torch.tensor([[0, 0, size, size]])
    off = torch.tensor([False])
    turned = affine.resample(x, whole, off, size, angle=torch.tensor([math.pi / 2]))[0, 0]
    assert turned[: size // 4].sum() > 0.9 * turned.sum()  # counter-clockwise: twelve o'clock
    moved = affine.resample(x, whole, off, size, shift=torch.tensor([[-0.5, 0.25]]))[0, 0]
    y, x_ = np.unravel_index(int(moved.argmax()), moved.shape)
    assert abs(x_ - (size / 2 - 4)) < 3
    assert abs(y - 0.75 * size) < 3


def test_images_of_unequal_size_make_one_batch(photos):
    from tellapart.data import open_source

    source = open_source(str(photos), image_size=32)
    out = ImageViews(32)(source.read(torch.arange(6)), _generator())
    assert out.shape == (6, 3, 32, 32)
    assert centre_view(source.read(torch.arange(6)), 32).shape == (6, 3, 32, 32)


def test_blur_is_torchvisions_gaussian():
    x = _images(3, 3, 60, 60).float() / 255
    sigma = torch.tensor([0.3, 1.0, 2.0])
    out = colour.gaussian_blur(x, sigma)
    for image, s, found in zip(x, sigma.tolist(), out, strict=True):
        torch.testing.assert_close(
            found, tv.gaussian_blur(image, [7, 7], [s, s]), atol=1e-5, rtol=0
        )


def test_sobel_sees_an_edge_and_nothing_on_flat_ground():
    x = torch.zeros(1, 3, 16, 16)
    x[..., 8:] = 1
    out = colour.sobel(x)
    assert float(out[..., 7:9].min()) == pytest.approx(1, abs=2e-3)
    assert float(out[..., :6].abs().max()) == 0


def test_probabilities_are_kept():
    x = torch.full((4000, 1, 8, 8), 200, dtype=torch.uint8)
    views = ImageViews(8, **(NEUTRAL | {"solarize": 0.3}))
    changed = (views(x, _generator())[:, 0, 0, 0] < 0.5).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.03)
    hidden = ImageViews(8, **(NEUTRAL | {"cutout": 1.0}))(x, _generator()) == 0.5
    assert 0.1 < float(hidden.float().mean()) < 0.26


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.5),
        ("hue", 0.7),
        ("area", (0.0, 1.0)),
        ("area", (0.9, 0.2)),
        ("rotation", -1),
        ("blur_sigma", (0, 1)),
    ],
)
def test_values_outside_their_range_are_named(field, value):
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')}"):
        ImageViews(32, **{field: value})
