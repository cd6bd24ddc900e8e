"""Near duplicates among images: candidates by vectors, then one picture laid on the other.

A pair is compared by what is drawn (`content`), in eight orientations (mirrored, turned by quarter
turns), moved and stretched by some percent, with brightness and contrast fitted. What is left then
decides. The thresholds lie in the gap between planted copies and look-alikes of single classes of
Fashion-MNIST; benchmarks/duplicates.py checks them on clip art, on a held-out half of its pairs.

Shapes: S images, N pairs, C channels, P = 32 pixels of a small copy, D width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..functional import top_k
from ..functional.geometry import unit_rows
from .content import SIDE, Contents, Frame, brightness

WIDTH, FITTED, SHRINKAGE = 64, 8192, 1e-3  # D at most; images and ridge of the axes
CANDIDATES = 12  # of every image, over all orientations and frames
SMALL = 6_000  # candidates of all images together, at least
TURNED = 20_000  # images up to which all eight orientations are searched; above, mirrored only
BLOCK = 1024  # images or pairs at once
EDGE = 3  # pixels at the border that are not compared: a crop has none there
COARSE, FINE = 1.5, 2.4  # grey levels (of 255) of the residual that make a difference of 1
OUTLIERS = 0.08  # share of the pixels that a small overlay may change
ROUGH = 5.0  # grey levels after one step of alignment above which a pair is dropped
ASPECT = 1.35  # ratio of the aspects of two frames of one picture, at most
CHROMA = 1.5  # grey levels of mean colour below which a picture counts as gray
DETAIL = 3.0  # grey levels: pixels with more show detail
LIMIT, LIMIT_COVERED, BUSY, OF_DETAIL = 0.9, 0.5, 0.8, 0.25  # see `is_duplicate`
CHROMA_AXES = torch.tensor([[0.236, 0.0, -0.236], [0.136, -0.272, 0.136]])  # red-blue, green
LINE = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1


@dataclass(frozen=True)
class Residuals:
    """The residuals of each pair after one picture is aligned with the other.

    Attributes:
        whole: (N,) coarse and fine residual together, 0 = equal; inf = not comparable.
        covered: (N,) the same without the worst eight percent of the pixels: a small overlay.
        of_detail: (N,) the fine residual as a share of the picture's own fine detail.
        busy: (N,) share of the pixels that show detail, of the picture that has less.
    """

    whole: Tensor
    covered: Tensor
    of_detail: Tensor
    busy: Tensor


def near_duplicates(found: Contents, also: Tensor | None = None) -> list[tuple[int, int]]:
    """Pairs of images that show the same picture, the smaller position first.

    Args:
        found: small copies of all images.
        also: (S, K) positions of further candidates of each image, by other vectors.
    """
    pairs, turns = _candidates(found)
    if also is not None:
        own = torch.arange(len(also))[:, None].expand_as(also)
        more = torch.stack([own, also], -1).view(-1, 2) + Frame.CONTENT * found.images
        pairs = torch.cat([pairs, more])
        turns = torch.cat([turns, torch.zeros(len(more), dtype=torch.int64)])
    same = pairs[is_duplicate(residuals(found, pairs, turns))] % found.images
    return sorted({(min(a, b), max(a, b)) for a, b in same.tolist()})


def vectors(found: Contents) -> Tensor:
    """(S, D) unit rows for the neighbours of images: colours and shapes of what is drawn.

    Args:
        found: small copies of all images.
    """
    content = found.small[found.images : 2 * found.images]
    pooled = torch.cat(
        [F.avg_pool2d(part.float(), 2).flatten(1) / 255 for part in content.split(4 * BLOCK)]
    )
    mean, axes = _axes(_sample(pooled))
    return unit_rows((pooled - mean) @ axes)


def is_duplicate(found: Residuals) -> Tensor:
    """Whether the residual of each pair is small enough (N,).

    An overlay may be left out where the rest is full of detail. Of a sign or a clock the small part
    that differs is the symbol, and another symbol is another picture.

    Args:
        found: as `residuals`.
    """
    covered = (found.covered <= LIMIT_COVERED) & (found.busy >= BUSY)
    return ((found.whole <= LIMIT) | covered) & (found.of_detail <= OF_DETAIL)


def alike(found: Contents, image: int, others: list[int]) -> list[bool]:
    """Whether each other image shows the same picture as `image`, in any orientation and frame."""
    count = found.images
    frames = ((Frame.WHOLE,) * 2, (Frame.CONTENT,) * 2, *_CROPPED)
    pairs = torch.tensor(
        [
            [a * count + image, b * count + other]
            for other in others
            for a, b in frames
            for _ in range(8)
        ]
    )
    turns = torch.arange(8).repeat(len(pairs) // 8)
    same = is_duplicate(residuals(found, pairs, turns)).view(len(others), -1)
    return [bool(one) for one in same.any(1)]


def residuals(found: Contents, pairs: Tensor, turns: Tensor) -> Residuals:
    """Lay the second picture of each pair on the first and measure what is left.

    Args:
        found: small copies of all images.
        pairs: (N, 2) places in `found.small`.
        turns: (N,) orientation 0 to 7 of the first picture, as `oriented`.
    """
    measured = torch.full((4, len(pairs)), torch.inf)
    aspect = found.aspect[pairs]
    first = torch.where(turns % 2 == 1, 1 / aspect[:, 0], aspect[:, 0])
    ratio = first / aspect[:, 1]
    close = torch.maximum(ratio, 1 / ratio) <= ASPECT
    close &= found.usable[pairs].all(1)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # the products are small: one thread each
        gray = _gray(found.small)

        def rough(rows: Tensor) -> Tensor:
            return rows[_roughly(gray, pairs[rows], turns[rows])]

        def exact(rows: Tensor) -> Tensor:
            a = oriented(found.small[pairs[rows, 0]].float(), turns[rows])
            return _left(a, found.small[pairs[rows, 1]].float())

        kept = torch.cat(
            [torch.zeros(0, dtype=torch.int64), *pool.map(rough, _split(close.nonzero()[:, 0]))]
        )
        parts = list(_split(kept, BLOCK // 4))
        for rows, values in zip(parts, pool.map(exact, parts), strict=True):
            measured[:, rows] = values
    return Residuals(*measured)


def oriented(x: Tensor, turns: Tensor) -> Tensor:
    """Images in their orientations: `turns % 4` quarter turns, mirrored first from 4 on.

    Args:
        x: (n, ..., P, P).
        turns: (n,) 0 to 7.
    """
    out = x.clone()
    for turn in turns.unique().tolist():
        here = turns == turn
        part = x[here].flip(-1) if turn >= 4 else x[here]
        out[here] = torch.rot90(part, turn % 4, (-2, -1))
    return out


_CROPPED = ((Frame.CONTENT, Frame.INNER), (Frame.INNER, Frame.CONTENT))


def _candidates(found: Contents) -> tuple[Tensor, Tensor]:
    """Pairs (N, 2) of places in `found.small` that may be one picture, and orientations (N,)."""
    count = found.images
    gray = _gray(found.small)
    seen = _sample(gray[count : 2 * count])
    turned = torch.cat([seen, seen.flip(-1), seen.mT, seen.mT.flip(-1)])
    mean, axes = _axes(turned.flatten(1) / 255)
    wanted = max(CANDIDATES, SMALL // count)  # small sets are compared almost whole
    k = min(wanted + 1, count)
    orientations = range(8) if count <= TURNED else (0, 4)
    best: list[tuple[Tensor, Tensor, int, int]] = []
    for frame, against in ((Frame.WHOLE, (Frame.WHOLE,)), (Frame.CONTENT, (1, 2))):
        rows = torch.cat([_vectors(gray[f * count : (f + 1) * count], mean, axes) for f in against])
        images = gray[frame * count : (frame + 1) * count]
        for turn in orientations:
            query = _vectors(oriented(images, torch.full((count,), turn)), mean, axes)
            similarity, row = top_k.top_k(query, rows, k)
            similarity = similarity.masked_fill(row % count == torch.arange(count)[:, None], -2)
            best.append((similarity, row + int(against[0]) * count, int(frame), turn))
    similarity = torch.cat([one[0] for one in best], 1)
    row = torch.cat([one[1] for one in best], 1)
    frames = torch.cat([torch.full((k,), one[2]) for one in best])
    turns = torch.cat([torch.full((k,), one[3]) for one in best])
    value, column = similarity.topk(min(wanted, similarity.shape[1]))
    first = torch.arange(count)[:, None] + frames[column] * count
    pairs = torch.stack([first, row.gather(1, column)], -1).view(-1, 2)
    near = value.reshape(-1) > 0
    return pairs[near], turns[column].reshape(-1)[near]


def _split(rows: Tensor, size: int = BLOCK) -> Iterator[Tensor]:
    return (part for part in rows.split(size) if len(part))


def _gray(small: Tensor) -> Tensor:
    """(n, 16, 16) float, brightness."""
    made = [F.avg_pool2d(brightness(part.float())[:, None], 2) for part in small.split(4 * BLOCK)]
    return torch.cat(made)[:, 0]


def _axes(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (m,) of vectors (n, m), and the axes (m, D) of their largest variance.

    Each axis is scaled by its variance: what most images share counts less.
    """
    mean = flat.mean(0)
    away = flat - mean
    variance, axes = torch.linalg.eigh((away.T @ away).double() / len(away))
    variance, axes = variance.flip(0)[:WIDTH], axes.flip(1)[:, :WIDTH]
    ridge = variance[0] * SHRINKAGE + 1e-9
    return mean, (axes / (variance.clamp_min(0) + ridge).sqrt()).float()


def _sample(x: Tensor) -> Tensor:
    """Up to FITTED rows, spread evenly."""
    return x[torch.linspace(0, len(x) - 1, min(len(x), FITTED)).long().unique()]


def _vectors(gray: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """(n, D) unit rows in which copies lie together."""
    return unit_rows((gray.flatten(1) / 255 - mean) @ axes)


def _resampled(x: Tensor, place: Tensor) -> Tensor:
    """x (n, C, P, P) seen at scale and offset `place` (n, 4), in half sides: sx, sy, tx, ty."""
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = place[:, 0], place[:, 1], place[:, 2:]
    grid = F.affine_grid(turn, [len(x), x.shape[1], SIDE, SIDE], align_corners=False)
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
SMOOTH = _blur(3.0)
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
    """(n, k, m): what turns a residual (n, m) into the parameters that explain it best."""
    square = tangents @ tangents.transpose(1, 2)
    ridge = torch.diag_embed(1e-3 * square.diagonal(dim1=1, dim2=2) + 1e-1)
    solved: Tensor = torch.linalg.solve(square + ridge, tangents)
    return solved


def _roughly(gray: Tensor, pairs: Tensor, turns: Tensor) -> Tensor:
    """(N,) bool: one step of alignment at 16 pixels leaves at most ROUGH levels."""
    a = _both(oriented(gray[pairs[:, 0]], turns), SOFT16)
    rest = _inside(_both(gray[pairs[:, 1]], SOFT16) - a, 2)
    known = torch.cat([_inside(_tangents(a), 2), _fitted(_inside(a, 2))], 1)
    rest = rest - ((_solver(known) @ rest[:, :, None])[:, None, :, 0] @ known)[:, 0]
    return _trimmed(rest) <= ROUGH


def _fitted(values: Tensor) -> Tensor:
    """(n, 2, m): contrast and brightness of pictures (n, m), as directions of change."""
    return torch.stack([values - values.mean(1, keepdim=True), torch.ones_like(values)], 1)


def _aligned(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4): where b (n, P, P) has to be seen to lie on a, by least squares, coarse first."""
    place = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(a), 1)
    for blur, steps in ((SOFTEST, 3), (SOFTER, 3), (SOFT, 3)):
        still, moved = _both(a, blur), _both(b, blur)[:, None]
        known = torch.cat([_inside(_tangents(still)), _fitted(_inside(still))], 1)
        solver = _solver(known)
        for _ in range(steps):
            rest = _inside(_resampled(moved, place)[:, 0] - still)
            move = (solver @ rest[:, :, None])[:, :4, 0].clamp(-0.1, 0.1)
            scale = place[:, :2] / (1 + move[:, :2])
            place = torch.cat(
                [scale.clamp(0.85, 1.18), (place[:, 2:] - scale * move[:, 2:]).clamp(-0.15, 0.15)],
                1,
            )
    return place


def _left(a: Tensor, b: Tensor) -> Tensor:
    """(4, n): the residuals of a and b (n, C, P, P), once b lies on a."""
    moved = _resampled(b, _aligned(brightness(a), brightness(b)))
    if a.shape[1] == 3:
        a, moved = (_light_and_chroma(x) for x in (a, moved))
        chroma = [x[:, 1:].abs().mean((1, 2, 3)) for x in (a, moved)]
        coloured = (torch.minimum(*chroma) > CHROMA)[:, None, None, None]
        a, moved = (  # a gray copy is compared with the brightness of its original alone
            torch.cat([x[:, :1], torch.where(coloured, x[:, 1:], torch.zeros_like(x[:, 1:]))], 1)
            for x in (a, moved)
        )
    light = a[:, 0]
    rest = moved - a
    softened = _both(a, SOFT) - a
    known = torch.cat([_fitted(_inside(light)), _inside(softened[:, 0])[:, None]], 1)
    target = _inside(rest[:, 0])
    keep = torch.ones_like(target)
    for _ in range(2):  # brightness, contrast and sharpness, without the worst pixels
        weighted = known * keep[:, None]
        share = (_solver(weighted) @ (target * keep)[:, :, None])[:, :, 0]
        left = (target - (share[:, None] @ known)[:, 0]).abs()
        keep = (left <= left.quantile(1 - OUTLIERS, dim=1, keepdim=True)).float()
    share = share.clamp(torch.tensor([-0.5, -80.0, -1.0]), torch.tensor([0.5, 80.0, 1.0]))
    gain, offset, soft = (share[:, i, None, None, None] for i in range(3))
    middle = _inside(light).mean(1)[:, None, None, None]
    first = torch.zeros(1, a.shape[1], 1, 1)
    first[:, 0] = 1.0
    rest = rest - gain * (a - first * middle) - first * offset - soft * softened
    coarse = _both(rest, SOFTEST)
    fine = _both(rest, SOFT) * first  # of brightness alone: compression thins fine colour out
    detail = _size(_both(a - _both(a, SMOOTH), SOFT)).clamp_min(0.2)
    whole = torch.hypot(_size(coarse) / COARSE, _size(fine) / FINE)
    covered = torch.hypot(_robust(coarse) / COARSE, _robust(fine) / FINE)
    busy = torch.minimum(_busy(a), _busy(moved))
    return torch.stack([whole, covered, torch.minimum(_robust(fine), _size(fine)) / detail, busy])


def _busy(x: Tensor) -> Tensor:
    """(n,): the share of pixels whose surroundings show detail."""
    light = x[:, 0]
    energy = _both((light - _both(light, SOFTEST)).square(), SOFTEST).clamp_min(0)
    return (_inside(energy) > DETAIL**2).float().mean(1)


def _light_and_chroma(x: Tensor) -> Tensor:
    """(n, 3, P, P): brightness, and two axes of colour, of which a third counts: JPEG thins it out.

    Brightness is scaled by the root of 3, so that the root mean square over the planes is that of
    the brightness where there is no colour.
    """
    chroma = torch.einsum("dc,nchw->ndhw", CHROMA_AXES, x)
    return torch.cat([math.sqrt(3) * brightness(x)[:, None], chroma], 1)


def _size(x: Tensor) -> Tensor:
    """(n,): root mean square of x (n, C, P, P)."""
    return _inside(x).flatten(1).square().mean(1).sqrt()


def _robust(x: Tensor) -> Tensor:
    """(n,): as `_size`, without the worst pixels."""
    return _trimmed(_inside(x).square().mean(1).sqrt())


def _trimmed(values: Tensor) -> Tensor:
    """(n,): root mean square of values (n, m) without the largest eight percent."""
    kept = max(1, math.ceil((1 - OUTLIERS) * values.shape[1]))
    return values.square().sort(1).values[:, :kept].mean(1).sqrt()
