"""Duplicates in a source, and what they do to splits and batches.

Exact duplicates have the same content; near duplicates show the same thing (a picture cropped,
mirrored or compressed again, a sentence with one word changed). docs/inspection.md defines both.

Shapes: S items, N pairs, or items of a batch where said, K neighbours.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import SequenceSource, Source, TextSource, modality_of
from ..data.source import Array
from ..evaluation.baselines import LogMel
from . import image_match, outliers
from .content import Contents

SAME_WORDS = 0.8  # shared of all words of two sentences
SAME_SHAPE = 0.98  # correlation of two sequences
STEPS = 64  # of a sequence that is compared
CHECKED = 300  # members of a chain up to which each is compared with the representative

Pairs = list[tuple[int, int]]
Alike = Callable[[int, list[int]], list[bool]]  # an item, others -> which others are near it


@dataclass(frozen=True)
class Copies:
    """Duplicates of a source, as positions.

    Attributes:
        exact: groups of exact duplicates.
        near: groups of near duplicates, in which not all items are exact duplicates.
        together: the groups of both kinds; each item is in at most one. Every member of a group
            is an exact or near duplicate of one of them, its representative.
        pairs: the pairs of near duplicates that were found, the smaller position first. An item
            that is near two representatives stands in one group and in pairs with both.
    """

    exact: list[list[int]]
    near: list[list[int]]
    together: list[list[int]]
    pairs: Pairs = field(default_factory=list)


def find(source: Source, near: Tensor, looks: Any = None) -> Copies:
    """Find the exact and near duplicates of a source.

    Args:
        source: the items.
        near: (S, K) positions of the nearest others of each item, by any vectors.
        looks: what is compared, as `Modality.comparison`.
    """
    same = exact_groups(contents(source))
    modality = modality_of(source)
    pairs = modality.near_duplicates(source, near, looks)

    def alike(item: int, others: list[int]) -> list[bool]:
        return modality.alike(source, looks, item, others)

    together = groups_around(pairs, same, len(source), alike)
    of = {item: number for number, group in enumerate(same) for item in group}
    mixed = [g for g in together if len({of.get(i, -1 - i) for i in g}) > 1]
    return Copies(same, mixed, together, pairs)


def groups_around(
    pairs: Pairs, exact: list[list[int]], count: int, alike: Alike | None = None
) -> list[list[int]]:
    """Groups in which every member is a duplicate of the group's representative.

    Connected pairs alone would chain pictures that have nothing in common: a near b, b near c. Here
    the item with the most near duplicates is the representative, and its duplicates are its
    group; the rest of the chain forms groups of its own.

    Args:
        pairs: near duplicates.
        exact: groups of exact duplicates; they stay together.
        count: S.
        alike: compares an item with others, for members of a chain that were not compared yet.

    Returns:
        Groups of two items or more, each in order, the largest first.

    >>> groups_around([(0, 1), (1, 2), (2, 3), (3, 4)], [[5, 6]], 7)
    [[0, 1, 2], [3, 4], [5, 6]]
    """
    node = list(range(count))
    members: dict[int, list[int]] = {}
    for group in exact:
        members[group[0]] = group
        for item in group:
            node[item] = group[0]
    links: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        if node[a] != node[b]:
            links[node[a]].add(node[b])
            links[node[b]].add(node[a])
    linked = [(a, b) for a, others in links.items() for b in others if a < b]
    groups = [list(group) for group in exact if group[0] not in links]
    for chain in outliers.groups(linked, count):
        rest = set(chain)
        while rest:
            centre = min(rest, key=lambda i: (-len(links[i] & rest), i))
            star = {centre} | (links[centre] & rest)
            others = sorted(rest - star)
            if alike is not None and others and len(chain) <= CHECKED and len(star) > 1:
                near = alike(centre, others)
                star |= {o for o, is_near in zip(others, near, strict=True) if is_near}
            rest -= star
            items = sorted(i for n in star for i in members.get(n, [n]))
            if len(items) > 1:
                groups.append(items)
    return sorted(groups, key=lambda g: (-len(g), g[0]))


def contents(source: Source) -> list[str]:
    """A hash of the content of each item: of its file where it is one, else of its values.

    Args:
        source: the items.
    """
    if source.hashes:
        return source.hashes
    modality = modality_of(source)
    return [
        hashlib.blake2b(modality.content(source, position), digest_size=16).hexdigest()
        for position in range(len(source))
    ]


def exact_groups(keys: Sequence[str]) -> list[list[int]]:
    """Positions of equal keys, the largest group first.

    Args:
        keys: a key of each item.

    >>> exact_groups(["a", "b", "a"])
    [[0, 2]]
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        places[key].append(position)
    return sorted((p for p in places.values() if len(p) > 1), key=lambda p: (-len(p), p[0]))


def leaks(copies: Copies, splits: dict[str, Array]) -> list[dict[str, int | str]]:
    """Training items that duplicate a test item.

    Args:
        copies: the duplicates of the source.
        splits: positions of each split; without "train" and "test" there are no leaks.

    Returns:
        {"train", "test" (positions), "kind": "exact" or "near"}, by training position.
    """
    if not {"train", "test"} <= splits.keys():
        return []
    held = set(splits["test"].tolist())
    twins: dict[int, dict[str, set[int]]] = defaultdict(lambda: {"exact": set(), "near": set()})
    for kind, groups in (("exact", copies.exact), ("near", [*copies.together, *copies.pairs])):
        for group in groups:
            for item in group:
                twins[item][kind] |= held.intersection(group)
    found: list[dict[str, int | str]] = []
    for item in sorted(set(twins) - held):
        for kind, tested in twins[item].items():
            if tested:
                found.append({"train": item, "test": min(tested), "kind": kind})
                break
    return found


def kept(copies: Copies, splits: dict[str, Array], count: int) -> list[int]:
    """Positions without duplicates: of each group one item, and no training item that leaks.

    Args:
        copies: the duplicates of the source.
        splits: positions of each split; of a group with test items the first test item is kept.
        count: S.
    """
    held = set(splits["test"].tolist()) if {"train", "test"} <= splits.keys() else set()
    dropped = {int(leak["train"]) for leak in leaks(copies, splits)}
    for group in copies.together:
        first = next((i for i in group if i in held), group[0])
        dropped |= set(group) - {first}
    return [i for i in range(count) if i not in dropped]


def in_a_batch(sizes: Sequence[int], items: int, batch: int) -> dict[str, float]:
    """How often duplicates meet in a batch of N of S items drawn without replacement.

    Args:
        sizes: of the groups of duplicates.
        items: S.
        batch: N.

    Returns:
        "pairs": expected pairs of duplicates in a batch, sum of g (g - 1) / 2 times
        N (N - 1) / (S (S - 1)); "item": probability that an item of the batch has a duplicate in
        it; "items": the share of items that have a duplicate.

    >>> in_a_batch([2], 4, 4)
    {'pairs': 1.0, 'item': 0.5, 'items': 0.5}
    """
    return collisions([size - 1 for size in sizes for _ in range(size)], items, batch)


def collisions(others: Sequence[int], items: int, batch: int) -> dict[str, float]:
    """As `in_a_batch`, from the number of duplicates that each item has.

    Args:
        others: how many other items are duplicates of each item; items without any may be left out.
        items: S.
        batch: N.
    """
    share = sum(n > 0 for n in others) / max(1, items)
    if items < 2 or batch < 2:
        return {"pairs": 0.0, "item": 0.0, "items": share}
    batch = min(batch, items)
    pairs = sum(others) / 2 * batch * (batch - 1) / (items * (items - 1))
    meets = sum(
        times * (1 - _none_of(n, items - 1, batch - 1)) for n, times in Counter(others).items()
    )
    return {"pairs": pairs, "item": meets / items, "items": share}


def equal_texts(source: TextSource) -> list[int]:
    """How many other pairs share a sentence with each pair of a source (S,).

    Contrastive learning pushes the sentences of different pairs apart: where two pairs share one,
    a sentence would be pushed away from itself.

    Args:
        source: pairs of sentences; the third column (a contradiction) does not count.
    """
    columns = [exact_groups(source.column(column)) for column in range(min(2, source.columns))]
    sizes = np.zeros(len(source), np.int64)
    for groups in columns:
        for group in groups:
            sizes[group] += len(group) - 1
    if len(columns) == 2:  # pairs that share both sentences were counted twice
        for group in exact_groups(["\0".join(t[:2]) for t in _texts(source)]):
            sizes[group] -= len(group) - 1
    return [int(n) for n in sizes]


def _texts(source: TextSource) -> list[tuple[str, ...]]:
    return [source.texts[row] for row in source.rows]


def _none_of(marked: int, items: int, drawn: int) -> float:
    """The probability that none of the marked items is among the drawn ones."""
    if marked + drawn > items:
        return 0.0
    return math.exp(
        math.lgamma(items - marked + 1) + math.lgamma(items - drawn + 1)
        - math.lgamma(items + 1) - math.lgamma(items - marked - drawn + 1)
    )  # fmt: skip


def briefs(source: SequenceSource) -> Tensor:
    """Short versions of sequences that can be compared (S, width), each stretched to 64 steps.

    Args:
        source: series, whose channels are compared, or sounds, whose log-mel bands are.
    """
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


def same_pictures(found: Contents, near: Tensor) -> Pairs:
    """Pairs of images that show the same picture.

    Args:
        found: small copies of all images.
        near: (S, K) positions of further candidates of each image.
    """
    pairs = image_match.near_duplicates(found, near[:, : image_match.CANDIDATES])
    drawn = found.usable[: found.images].nonzero()[:, 0].tolist()
    equal = exact_groups([found.small[i].numpy().tobytes().hex() for i in drawn])
    return pairs + [(drawn[a], drawn[b]) for g in equal for a, b in itertools.pairwise(g)]


def same_words(source: TextSource, pairs: Tensor) -> Pairs:
    """Texts that share four fifths of their words, or all of them but for case and punctuation.

    Args:
        source: S texts.
        pairs: (N, 2) positions to compare, as `pairs_of`; equal texts are found without them.
    """
    words = [re.findall(r"\w+", " ".join(texts).casefold()) for texts in _texts(source)]
    keys = [" ".join(w) if w else f"\0{i}" for i, w in enumerate(words)]
    found = [pair for group in exact_groups(keys) for pair in itertools.pairwise(group)]
    sets = [set(w) for w in words]
    for a, b in pairs.tolist():
        shared, either = len(sets[a] & sets[b]), len(sets[a] | sets[b])
        alike = either >= 5 and shared >= SAME_WORDS * either
        if alike or keys[a] == keys[b]:
            found.append((a, b))
    return found


def pairs_of(near: Tensor) -> Tensor:
    """Each item with its neighbours, the smaller position first, each pair once: (N, 2).

    Args:
        near: (S, K) positions of the nearest others of each item.
    """
    own = torch.arange(len(near))[:, None].expand_as(near)
    pairs: Tensor = torch.stack([own, near], -1).view(-1, 2).sort(1).values.unique(dim=0)
    return pairs


def same_shapes(lengths: Array, looks: Tensor, pairs: Tensor) -> Pairs:
    """Sequences whose lengths differ by at most a tenth and whose courses correlate.

    Args:
        lengths: (S,) steps.
        looks: (S, D), as `briefs`.
        pairs: (N, 2) positions to compare, as `pairs_of`.
    """
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
