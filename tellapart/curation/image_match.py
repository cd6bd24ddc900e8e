"""Whether two images are one: small copies, vectors that find candidates, and what is left when one lies on the other.

Shapes: S images, N pairs, C channels, P = 32 pixels of a small copy, D width of a vector.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSource
from ..functional.geometry import unit_rows

SIDE, FRAME, WIDTH = 32, 16, 64  # P; pixels of a framed copy; D at most
BLOCK = 1024  # images or pairs at once
FITTED = 8192  # images that the axes of the vectors are computed from
EDGE = 3  # pixels at the border that are not compared: a crop has none there
COARSE, FINE = 4.0, 6.5  # grey levels (of 255) of what is left that make a difference of 1
OF_CONTRAST, FLAT = (
    0.3,
    1.0,
)  # what is left: at most this part of the contrast, or this many grey levels
ROUGH = 7.0  # grey levels after one step of alignment above which a pair is not looked at again
BRIGHTNESS_AND_COLOUR = torch.tensor(
    [[0.577, 0.577, 0.577], [0.236, 0.0, -0.236], [0.136, -0.272, 0.136]]
)
LINE = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1


def small_copies(source: ImageSource) -> Tensor:
    """(S, C, P, P) uint8: every image whole, stretched to a square."""
    found = torch.empty(len(source), source.channels, SIDE, SIDE, dtype=torch.uint8)
    shape = source.pixels.shape
    if shape is not None:
        for index in torch.arange(len(source)).split(BLOCK):
            images = source.read(index)
            if isinstance(images, Tensor):
                found[index] = _shrunk(images)
        return found
    for row in range(len(source)):
        image = torch.from_numpy(np.array(source.image(row))).permute(2, 0, 1)[None]
        found[row] = _shrunk(image)[0]
    return found


def vectors(small: Tensor) -> Tensor:
    """(S, D) unit rows in which copies lie together, also where all images look alike.

    Each image is framed by what stands out from its border (by its centre and spread, so that a crop changes little),
    centred, and turned to the D axes of largest variance, each scaled to the same: what most images share counts less.
    """
    sample = torch.linspace(0, len(small) - 1, min(len(small), FITTED)).long().unique()
    framed = _framed(small[sample]).flatten(1)
    mean = framed.mean(0)
    framed -= mean
    variance, axes = torch.linalg.eigh((framed.T @ framed).double() / len(framed))
    variance, axes = variance.flip(0)[:WIDTH], axes.flip(1)[:, :WIDTH]
    scaled = (axes / (variance + variance[0] * 1e-3 + 1e-9).clamp_min(1e-9).sqrt()).float()
    made = [(_framed(part).flatten(1) - mean) @ scaled for part in small.split(BLOCK)]
    return unit_rows(torch.cat(made))


def differences(small: Tensor, pairs: Tensor) -> Tensor:
    """How far the images of each pair (N, 2) are from being one: (N,), 0 = the same, about 1 = the limit; inf = far.

    The second is laid on the first (moved and stretched by some percent, sharpened or softened), and what is left is
    measured in grey levels: coarse parts count more, for a small copy or a strong compression loses fine ones.
    """
    found = torch.full((len(pairs),), torch.inf)
    gray = _gray(small)
    if not len(pairs):
        return found
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # small products each
        near = torch.cat(list(pool.map(lambda part: _roughly(gray, part), pairs.split(BLOCK))))
        parts = [part for part in near.nonzero()[:, 0].split(BLOCK // 4) if len(part)]
        made = pool.map(lambda index: _left(*(small[i].float() for i in pairs[index].T)), parts)
        for index, values in zip(parts, made, strict=True):
            found[index] = values
    return found


def _shrunk(images: Tensor) -> Tensor:
    made = F.interpolate(
        images.float(), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
    )
    return made.round().clamp(0, 255).to(torch.uint8)


def _gray(small: Tensor) -> Tensor:
    """(S, 1, 16, 16) uint8."""
    made = [F.avg_pool2d(part.float().mean(1, keepdim=True), 2) for part in small.split(4 * BLOCK)]
    return torch.cat([part.round().to(torch.uint8) for part in made])


def _framed(small: Tensor) -> Tensor:
    """(n, C, 16, 16) in [0, 1]: cut by centre and spread of what differs from the border."""
    x = small.float() / 255
    gray = x.mean(1)
    border = torch.cat([gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1]], 1).median(1).values
    weight = ((gray - border[:, None, None]).abs() - 0.05).clamp_min(0) + 1e-4
    weight /= weight.sum((1, 2), keepdim=True)
    along = torch.stack([weight.sum(1), weight.sum(2)], 1)  # (n, 2, P): over columns, over rows
    centre = (along * LINE).sum(2)
    spread = (along * (LINE - centre[:, :, None]).square()).sum(2).sqrt()
    return _resampled(x, torch.cat([2.2 * spread, centre], 1), FRAME)


def _resampled(x: Tensor, place: Tensor, side: int) -> Tensor:
    """(n, C, side, side): x (n, C, P, P) seen at scale and offset `place` (n, 4), in half sides: sx, sy, tx, ty."""
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = place[:, 0], place[:, 1], place[:, 2:]
    grid = F.affine_grid(turn, [len(x), x.shape[1], side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blur(sigma: float, side: int = SIDE) -> Tensor:
    """(side, side): x @ this blurs the last axis; the border is repeated."""
    place = torch.arange(side)
    away = torch.arange(-3 * side, 3 * side + 1)
    weight = torch.exp(-away.square() / (2 * sigma**2))
    made = torch.zeros(side, side)
    for step, w in zip(away.tolist(), (weight / weight.sum()).tolist(), strict=True):
        made.index_put_(
            ((place + step).clamp(0, side - 1), place), torch.tensor(w), accumulate=True
        )
    return made


def _slope(side: int = SIDE) -> Tensor:
    """(side, side): x @ this is the slope of the last axis, per half side."""
    made = torch.zeros(side, side)
    inner = torch.arange(1, side - 1)
    made[inner + 1, inner], made[inner - 1, inner] = side / 4, -side / 4
    return made


def _both(x: Tensor, m: Tensor) -> Tensor:
    """A blur along both axes."""
    return m.T @ (x @ m)


SOFT, SOFTER, SOFTEST = _blur(0.8), _blur(1.5), _blur(2.0)
SOFT16 = _blur(0.8, 16)


def _tangents(x: Tensor) -> Tensor:
    """(n, 4, side, side): how x (n, side, side) changes with sx, sy, tx, ty."""
    side = x.shape[-1]
    slope, line = _slope(side), (torch.arange(side) + 0.5) / side * 2 - 1
    across, down = x @ slope, slope.T @ x
    return torch.stack([across * line, down * line[:, None], across, down], 1)


def _inside(x: Tensor, edge: int = EDGE) -> Tensor:
    return x[..., edge:-edge, edge:-edge].flatten(-2)


def _solver(tangents: Tensor) -> Tensor:
    """(n, 4, m): what turns a remainder (n, m) into the move that explains it best."""
    square = tangents @ tangents.transpose(1, 2)
    ridge = torch.diag_embed(1e-3 * square.diagonal(dim1=1, dim2=2) + 1e-1)
    solved: Tensor = torch.linalg.solve(square + ridge, tangents)
    return solved


def _roughly(gray: Tensor, pairs: Tensor) -> Tensor:
    """(N,) bool: pairs that one step of alignment at 16 pixels brings within ROUGH grey levels."""
    first, again = pairs[:, 0].unique(return_inverse=True)
    whole = _both(gray[first, 0].float(), SOFT16)
    tangents = _inside(_tangents(whole), 2)
    solver = _solver(tangents)
    rest = _inside(_both(gray[pairs[:, 1], 0].float(), SOFT16), 2) - _inside(whole, 2)[again]
    move = (solver[again] @ rest[:, :, None])[:, :, 0].clamp(-0.15, 0.15)
    rest -= (move[:, None] @ tangents[again])[:, 0]
    return rest.square().mean(1).sqrt() <= ROUGH


def _aligned(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4): where b (n, P, P) has to be seen to lie on a, by least squares, coarse first."""
    place = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(a), 1)
    for blur, steps in ((SOFTER, 4), (SOFT, 3)):
        still, moved = _both(a, blur), _both(b, blur)[:, None]
        tangents = _inside(_tangents(still))
        solver = _solver(tangents)
        for _ in range(steps):
            rest = _inside(_resampled(moved, place, SIDE)[:, 0] - still)
            move = (solver @ rest[:, :, None])[:, :, 0].clamp(-0.1, 0.1)
            scale = place[:, :2] / (1 + move[:, :2])
            place = torch.cat(
                [scale.clamp(0.85, 1.18), (place[:, 2:] - scale * move[:, 2:]).clamp(-0.15, 0.15)],
                1,
            )
    return place


def _left(a: Tensor, b: Tensor) -> Tensor:
    """(n,): the difference of a and b (n, C, P, P), once b lies on a."""
    rest = _resampled(b, _aligned(a.mean(1), b.mean(1)), SIDE) - a
    if (
        a.shape[1] == 3
    ):  # compression thins colour out: what is left of brightness counts, of colour a part
        rest, a = (torch.einsum("dc,nchw->ndhw", BRIGHTNESS_AND_COLOUR, x) for x in (rest, a))
    softened = _both(a, SOFT) - a
    by, of = _inside(softened, EDGE).flatten(1), _inside(rest).flatten(1)
    share = ((by * of).sum(1) / by.square().sum(1).clamp_min(1.0)).clamp(-1, 1)
    rest = rest - share[:, None, None, None] * softened
    fine, coarse = _size(_both(rest, SOFT)), _size(_both(rest, SOFTEST))
    within = _inside(a).flatten(1)
    contrast = (within - within.mean(1, keepdim=True)).square().mean(1).sqrt()
    made = torch.hypot(coarse / COARSE, fine / FINE)
    return made.masked_fill(fine > (OF_CONTRAST * contrast).clamp_min(FLAT), torch.inf)


def _size(x: Tensor) -> Tensor:
    return _inside(x).flatten(1).square().mean(1).sqrt()
