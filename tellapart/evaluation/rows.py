"""The rows of an evaluation table: the baselines, the encoder, and what each makes of the same views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Source
from ..embeddings import embed, embed_both
from ..encoders.inference import run_over
from ..training.loading import Subject, parts_of, untrained
from ..views.images import ImageViews
from . import baselines, label_free
from .protocol import Pair

BLOCK = 64  # items whose views are in memory at once
Seen = Callable[[Any], Tensor]  # views (N, C, P, P) -> vectors (N, width)


@dataclass
class Rows:
    """The rows of a table: embeddings by name, what turns views into each, and which are baselines."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()


def rows_of(subject: Subject, source: Source, say: Callable[[str], None]) -> Rows:
    """The rows of the table for an encoder: pixels, the network before training, its features and embedding."""
    train, test = parts_of(source)
    say(f"embedding {len(train) + len(test or ()):,} {source.many}")
    rows = Rows()
    name, plain_one = baselines.of(train)
    rows.pairs[name] = (
        baselines.embed(plain_one, train, name),
        baselines.embed(plain_one, test, name) if test else None,
    )
    rows.seen[name] = plain_one
    for name, network in untrained(subject, say).items():
        rows.pairs[name] = embed(network, train), embed(network, test) if test else None
        rows.seen[name] = network.features
    rows.baselines = tuple(rows.pairs)
    wanted: tuple[Any, ...] = ("features", "embedding") if subject.run else ("features",)
    first = embed_both(subject.encoder, train, wanted)
    second = embed_both(subject.encoder, test, wanted) if test else {}
    for output in wanted:
        name = f"trained {output}" if subject.run else subject.headline
        rows.pairs[name] = first[output], second.get(output)
        rows.seen[name] = subject.encoder.features if output == "features" else subject.encoder
    return rows


def seen_views(rows: Rows, subject: Subject, source: Source) -> dict[str, Tensor]:
    """What every row makes of the same views: name -> (N, V, width), N up to 1,000 items.

    Of the test part where there is one of two items or more; the views are those that the run was trained on.
    """
    train, test = parts_of(source)
    part = test if test is not None and len(test) > 1 else train
    part = part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[: label_free.ITEMS]))
    views = (
        subject.config.views(source) if subject.config else ImageViews(source.about["image_size"])
    )
    generator = torch.Generator().manual_seed(0)

    def outputs(drawn: list[Any], _: Tensor) -> list[Tensor]:
        return [
            torch.stack([seen(view).float() for view in drawn], 1) for seen in rows.seen.values()
        ]

    blocks = run_over(
        outputs,
        part,
        batch=BLOCK,
        view=lambda _, batch: [views(batch, generator) for _ in range(label_free.VIEWS)],
    )
    return {
        name: torch.cat(parts)
        for name, parts in zip(rows.seen, zip(*blocks, strict=True), strict=True)
    }
