"""Colour changes, blur and edge filters for a batch of images, with per-item parameters.

Shapes: N batch, C channels, P side. Values in [0, 1].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import HueSpace as HueSpace

LUMA = (0.2989, 0.587, 0.114)  # weights of torchvision and Pillow


def adjust(
    x: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    gray: Tensor,
    *,
    hue_space: HueSpace = "hsv",
) -> Tensor:
    """Change brightness, contrast, saturation, hue and grayscale.

    Brightness, contrast and saturation are one matrix and one offset per image, followed by a
    clamp; then come hue and grayscale. Contrast is relative to the mean luma of the image, which is
    linear in its channel means, so one reduction suffices. torchvision clamps to [0, 1] after each
    operation, this function once.

    Args:
        x: (N, C, P, P). Unless C is 3, only brightness and contrast have an effect.
        brightness: (N,) factors >= 0, 1 = unchanged.
        contrast: (N,) factors >= 0, 1 = unchanged.
        saturation: (N,) factors >= 0, 1 = unchanged.
        hue: (N,) turns in [-0.5, 0.5], positive from red towards yellow as in torchvision.
        gray: (N,) bool, whether to convert to grayscale.
        hue_space: "hsv" (`turn_hue`) or "yiq" (`hue_rotation`, linear and part of the matrix).

    Returns:
        (N, C, P, P) in [0, 1].
    """
    n, c = x.shape[:2]
    flat = x.reshape(n, c, -1)
    mean = flat.mean(2)
    turning = c == 3 and hue_space == "hsv"
    if turning:
        matrix = brightness[:, None, None] * _saturation_matrix(saturation)
    elif c == 3:
        matrix = (
            brightness[:, None, None]
            * _saturation_matrix(saturation.where(~gray, 0.0))
            @ hue_rotation(hue)
        )
    else:
        matrix = brightness[:, None, None] * torch.eye(c, device=x.device)
    luma = mean @ mean.new_tensor(LUMA) if c == 3 else mean.mean(1)
    offset = (1 - contrast) * brightness * luma
    matrix = contrast[:, None, None] * matrix
    if c == 1:
        return x.mul(matrix[..., None]).add_(offset[:, None, None, None]).clamp_(0, 1)
    x = torch.bmm(matrix, flat).add_(offset[:, None, None]).clamp_(0, 1).view_as(x)
    if turning:
        x = turn_hue(x, hue)
        x[gray] = luminance(x[gray]).expand(-1, 3, -1, -1)
    return x


def turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV; value and saturation are unchanged.

    Gray stays gray, and a full turn is the identity. Luma changes: yellow turned by half a circle
    becomes dark blue, which makes it a strong augmentation (docs/experiments.md, "Hue").

    The code has no branches, because `where` costs ten times as much as an addition here: the
    channels are sorted by two exchanges, which determine the sixth of the circle of the hue.

    Args:
        x: (N, 3, P, P) in [0, 1].
        turns: (N,) full circles.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> turn_hue(red, torch.tensor([1 / 3])).flatten().round().tolist()
    [0.0, 1.0, 0.0]
    """
    r, g, b = x.unbind(1)
    more, less = torch.maximum(g, b), torch.minimum(g, b)
    first = (b - g).sign_().clamp_(min=0)  # 1 where g and b were exchanged
    high, middle = torch.maximum(r, more), torch.minimum(r, more)
    second = (more - r).sign_().clamp_(min=0)
    low = torch.minimum(middle, less)
    chroma = high - low
    sixth = (middle - less).mul_(chroma.clamp_min(1e-6).reciprocal_())
    sixth.sub_(first, alpha=6).addcmul_(second, first.mul(12).sub_(2)).abs_()
    sixth.div_(6).add_(1 + turns[:, None, None]).frac_().mul_(6)
    out = torch.empty_like(x)
    # a channel is low (red) or high within one sixth of its centre, with linear ramps beside it
    for channel, centre in enumerate((3, 2, 4)):
        away = (sixth - centre).abs_().sub_(1).clamp_(0, 1)
        if channel == 0:
            torch.addcmul(low, away, chroma, out=out[:, channel])
        else:
            torch.addcmul(high, away, chroma, value=-1, out=out[:, channel])
    return out


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian, separably, with reflected borders.

    The kernel is a tenth of the side wide (SimCLR, appendix A), odd and at least 3, but at most 3.5
    times the largest sigma to either side, beyond which lies less than 1/1000 of the weight. Sums
    of shifted images stay in the CPU cache and are faster than a convolution.

    Args:
        x: (N, C, P, P).
        sigma: (N,) in pixels.
    """
    if not len(x):
        return x
    reach = max(1, min(min(x.shape[2:]) // 10 // 2, math.ceil(3.5 * float(sigma.max()))))
    offsets = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
    taps = (kernel / kernel.sum(1, keepdim=True))[:, :, None, None, None].unbind(1)
    for axis in (2, 3):
        pads = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded, side = F.pad(x, pads, mode="reflect"), x.shape[axis]
        x = padded.narrow(axis, 0, side) * taps[0]
        for shift, tap in enumerate(taps[1:], start=1):
            x.addcmul_(padded.narrow(axis, shift, side), tap)
    return x


def sobel(x: Tensor) -> Tensor:
    """Return the magnitude of the luma's Sobel gradient in every channel; a full edge is 1."""
    luma = luminance(x)
    kernel = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    edges = F.conv2d(
        F.pad(luma, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None]
    )
    length: Tensor = torch.linalg.vector_norm(edges, dim=1, keepdim=True)
    return length.clamp(0, 1).expand_as(x)


def luminance(x: Tensor) -> Tensor:
    """Return the luma (N, 1, P, P) of RGB images, else the mean of the channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def hue_rotation(turns: Tensor) -> Tensor:
    """Return matrices (N, 3, 3) that rotate the chroma plane of YIQ.

    Gray and luma are unchanged; a full turn is the identity.

    Args:
        turns: (N,) full circles.
    """
    to_yiq = turns.new_tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    # the hue angle of YIQ runs opposite to that of HSV: red to yellow is a negative rotation
    angle = -2 * math.pi * turns
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    back: Tensor = torch.linalg.inv(to_yiq)
    return back @ turn @ to_yiq


def _saturation_matrix(saturation: Tensor) -> Tensor:
    """Return saturation matrices (N, 3, 3); factor 0 gives gray."""
    keep = saturation[:, None, None]
    return keep * torch.eye(3, device=keep.device) + (1 - keep) * keep.new_tensor(LUMA).expand(3, 3)
