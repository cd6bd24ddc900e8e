"""What is in a source twice: the same content, or nearly; what that does to splits and to batches.

Shapes: S items, N pairs, or items of a batch where said, K neighbours.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import SequenceSource, Source, TextSource, modality_of
from ..data.source import Array
from ..evaluation.baselines import LogMel
from . import image_match, outliers

CANDIDATES = 10  # nearest others of each item that are compared with it
LIMIT, FEW, LOOSEST = (
    1.1,
    2500,
    1.6,
)  # the largest difference of copies among so many images; what may loosen it
CLOSE = 4.0  # the difference of far neighbours up to which the limit stays as it is
SAME_WORDS, SAME_SHAPE = 0.8, 0.98  # shared of all words of two texts; correlation of two sequences
STEPS = 64  # of a sequence in brief


@dataclass(frozen=True)
class Copies:
    """What is there more than once.

    Attributes:
        exact: groups of positions with the same content. near: groups with the same content or nearly, of which not
            all are the same.
        together: both, each item in at most one group.
    """

    exact: list[list[int]]
    near: list[list[int]]
    together: list[list[int]]


def find(source: Source, near: Tensor, looks: Tensor | None = None) -> Copies:
    """The copies in a source.

    Args:
        near: (S, K) positions of the nearest others of each item, by any vectors.
        looks: what is compared, as `Modality.comparison`.
    """
    same = exact_groups(contents(source))
    pairs = modality_of(source).near_duplicates(source, near, looks)
    linked = [(a, b) for group in same for a, b in itertools.pairwise(group)]
    together = outliers.groups([*pairs, *linked], len(source))
    of = {item: number for number, group in enumerate(same) for item in group}
    mixed = [g for g in together if len({of.get(i, -1 - i) for i in g}) > 1]
    return Copies(same, mixed, together)


def contents(source: Source) -> list[str]:
    """A hash of the content of each item: of its file where it is one, else of its values."""
    if source.hashes:
        return source.hashes
    modality = modality_of(source)
    return [
        hashlib.blake2b(modality.content(source, position), digest_size=16).hexdigest()
        for position in range(len(source))
    ]


def exact_groups(keys: Sequence[str]) -> list[list[int]]:
    """Positions of equal keys, the largest group first.

    >>> exact_groups(["a", "b", "a"])
    [[0, 2]]
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        places[key].append(position)
    return sorted((p for p in places.values() if len(p) > 1), key=lambda p: (-len(p), p[0]))


def leaks(copies: Copies, splits: dict[str, Array]) -> list[dict[str, int | str]]:
    """Training items that are also test items: {"train", "test" (positions), "kind": "exact" or "near"}."""
    if not {"train", "test"} <= splits.keys():
        return []
    held = set(splits["test"].tolist())
    exact = {item: number for number, group in enumerate(copies.exact) for item in group}
    found: list[dict[str, int | str]] = []
    for group in copies.together:
        tested = [i for i in group if i in held]
        for item in group:
            if not tested or item in held:
                continue
            twin = next((t for t in tested if item in exact and exact.get(t) == exact[item]), None)
            kind = "near" if twin is None else "exact"
            found.append({"train": item, "test": tested[0] if twin is None else twin, "kind": kind})
    return found


def kept(copies: Copies, splits: dict[str, Array], count: int) -> list[int]:
    """Positions without the copies: of each group the first, or the first of the test part where one is there."""
    held = set(splits["test"].tolist()) if {"train", "test"} <= splits.keys() else set()
    dropped: set[int] = set()
    for group in copies.together:
        first = next((i for i in group if i in held), group[0])
        dropped |= set(group) - {first}
    return [i for i in range(count) if i not in dropped]


def in_a_batch(sizes: Sequence[int], items: int, batch: int) -> dict[str, float]:
    """How often copies meet in a batch of N of S items drawn without replacement.

    Args: sizes: of the groups of copies. items: S. batch: N.
    Returns:
        "pairs": expected pairs of copies in a batch, sum of g (g - 1) / 2 times N (N - 1) / (S (S - 1));
        "item": probability that an item of the batch has a copy in it; "items": the share of items with a copy.

    >>> in_a_batch([2], 4, 4)
    {'pairs': 1.0, 'item': 0.5, 'items': 0.5}
    """
    if items < 2 or batch < 2:
        return {"pairs": 0.0, "item": 0.0, "items": sum(sizes) / max(1, items)}
    batch = min(batch, items)
    pairs = sum(g * (g - 1) / 2 for g in sizes) * batch * (batch - 1) / (items * (items - 1))
    meets = sum(g * (1 - _none_of(g - 1, items - 1, batch - 1)) for g in sizes)
    return {"pairs": pairs, "item": meets / items, "items": sum(sizes) / items}


def _none_of(marked: int, items: int, drawn: int) -> float:
    """The probability that none of the marked items is among the drawn ones."""
    if marked + drawn > items:
        return 0.0
    return math.exp(
        math.lgamma(items - marked + 1) + math.lgamma(items - drawn + 1)
        - math.lgamma(items + 1) - math.lgamma(items - marked - drawn + 1)
    )  # fmt: skip


def briefs(source: SequenceSource) -> Tensor:
    """(S, width): of a series its channels, of a sound its log-mel bands, each stretched to STEPS steps."""
    mel = LogMel(source.rate) if source.rate else None
    made = []
    for position in range(len(source)):
        values = torch.from_numpy(np.array(source.sequence(position), np.float32))
        if mel:
            view = {"values": values.T[None] / 32768, "length": torch.tensor([len(values)])}
            values = mel.frames(view)[0][0]
        made.append(
            F.interpolate(values.T[None], STEPS, mode="linear", align_corners=False).flatten()
        )
    return torch.stack(made)


def _pairs(near: Tensor) -> Tensor:
    """(N, 2): each item with its neighbours, the smaller position first, each pair once."""
    own = torch.arange(len(near))[:, None].expand_as(near)
    pairs: Tensor = torch.stack([own, near], -1).view(-1, 2).sort(1).values.unique(dim=0)
    return pairs


def same_pictures(small: Tensor, near: Tensor) -> list[tuple[int, int]]:
    """Pairs of images that differ by less than a limit once one is laid on the other.

    Args:
        small: (S, C, 32, 32) uint8, as `image_match.small_copies`.
        near: (S, K) positions of the nearest others of each image.
    """
    pairs = _pairs(near[:, :CANDIDATES])
    differences = image_match.differences(small, pairs)
    found = pairs[differences <= _limit(small, near)]
    same = exact_groups(
        [image.tobytes() for image in small.numpy()]
    )  # more of them than an item has neighbours
    return [
        *((int(a), int(b)) for a, b in found),
        *((a, b) for group in same for a, b in itertools.pairwise(group)),
    ]


def _limit(small: Tensor, near: Tensor) -> float:
    """The largest difference of two copies of one image.

    Among more images look-alikes come closer (as the count to the power of -1/10, the number of ways in which they
    differ). Where even the far neighbours are nothing alike, copies may differ by more.
    """
    limit = LIMIT * math.exp(-0.1 * max(0.0, math.log(len(small) / FEW)))
    far = near[: 4 * FEW, CANDIDATES // 2 : CANDIDATES]
    if far.shape[1] < CANDIDATES // 2 or len(small) < 20:
        return limit
    differences = image_match.differences(small, _pairs_of_rows(far))
    typical = float(differences.sort().values[int(0.001 * len(differences))])
    return limit * min(LOOSEST, max(1.0, typical / CLOSE))


def _pairs_of_rows(near: Tensor) -> Tensor:
    own = torch.arange(len(near))[:, None].expand_as(near)
    return torch.stack([own, near], -1).reshape(-1, 2)


def same_words(source: TextSource, near: Tensor) -> list[tuple[int, int]]:
    """Texts that share four fifths of their words, or all of them but for case and punctuation.

    Args:
        source: S texts.
        near: (S, K) positions of the nearest others of each text.
    """
    pairs = _pairs(near)
    words = [re.findall(r"\w+", " ".join(source.texts[row]).casefold()) for row in source.rows]
    keys = [" ".join(w) if w else f"\0{i}" for i, w in enumerate(words)]
    found = [(a, b) for group in exact_groups(keys) for a, b in itertools.pairwise(group)]
    sets = [set(w) for w in words]
    for a, b in pairs.tolist():
        shared, either = len(sets[a] & sets[b]), len(sets[a] | sets[b])
        if either >= 5 and shared >= SAME_WORDS * either:
            found.append((a, b))
    return found


def same_shapes(lengths: Array, looks: Tensor, near: Tensor) -> list[tuple[int, int]]:
    """Sequences whose lengths differ by at most a tenth and whose courses correlate.

    Args:
        lengths: (S,) steps.
        looks: (S, D), as `briefs`.
        near: (S, K) positions of the nearest others of each sequence.
    """
    pairs = _pairs(near)
    steps = torch.from_numpy(np.array(lengths, np.float64))
    ratio = steps[pairs[:, 0]] / steps[pairs[:, 1]]
    pairs = pairs[(ratio > 0.9) & (ratio < 1.1)]
    away = looks - (looks.mean(0) if len(looks) >= 10 else looks.mean(1, keepdim=True))
    size = away.norm(dim=1)
    product = torch.cat(
        [(away[p[:, 0]] * away[p[:, 1]]).sum(1) for p in pairs.split(4096)] or [torch.zeros(0)]
    )
    low, high = size[pairs].sort(1).values.T
    same = (product >= SAME_SHAPE * low * high) & (low >= 0.8 * high) & (low > 1e-6)
    return [(int(a), int(b)) for a, b in pairs[same]]
