"""The rows of an evaluation table: baselines and outputs of the encoder, on the same items."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSource, Source, modality_of
from ..embeddings import Embeddings
from ..encoders import AnyEncoder, Encoder
from ..encoders.inference import Output, run_over
from ..runtime.console import Console, clock
from ..training.build import scored_views
from ..training.loading import Subject, images_of, only_size, parts_of, untrained
from . import baselines, label_free
from .protocol import Pair
from .stored import embed_in_chunks

BLOCK = 64  # items whose views are in memory at once
SMALL = 64  # pixels: side of the view of the randomly initialised baseline, at most (eval-v2)
QUICK = 1000  # items of each part with --quick
FORECAST, LONG = 5.0, 60.0  # seconds after which a forecast is made, and above which it is printed
Function = Callable[[Any], Tensor]  # views (N, C, P, P) -> vectors (N, width)


@dataclass
class Rows:
    """The rows of a table.

    Attributes:
        pairs: name -> embeddings of the training and the test part.
        functions: name -> what turns views into vectors.
        baselines: the names of the rows that are baselines.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pass:
    """One network over the source: the rows it makes, by output, and the side of its view."""

    encoder: AnyEncoder
    rows: dict[Output, str]
    side: int | None = None


def rows_of(subject: Subject, source: Source, console: Console, *, small: bool = True) -> Rows:
    """Embed every item once per network and collect the rows of the table.

    Features and embedding come from one pass. Vectors are kept in chunks (`stored`), so that a
    second call continues where the first was interrupted.

    Args:
        subject: the encoder, with its run where it has one.
        source: the items; the training and test part are read alike.
        console: shows progress, and a forecast where the work is long.
        small: the randomly initialised baseline sees images of at most 64 pixels a side
            (eval-v2); False: the size of the encoder (eval-v1).
    """
    train, test = parts_of(source)
    rows = Rows()
    modality = modality_of(source)
    name, baseline = modality.baseline(train)
    rows.pairs[name] = (
        baselines.embed(baseline, train, name),
        baselines.embed(baseline, test, name) if test else None,
    )
    rows.functions[name] = baseline
    passes = [
        _Pass(
            network, {"features": name}, modality.untrained_side(network, source) if small else None
        )
        for name, network in untrained(subject, console.say).items()
    ]
    rows.baselines = (name, *(p.rows["features"] for p in passes))
    trained: dict[Output, str] = {"features": subject.headline}
    if subject.run:
        trained = {"features": "trained features", "embedding": "trained embedding"}
    passes.append(_Pass(subject.encoder, trained))
    total = len(train) + len(test or ())
    console.say(f"embedding {total:,} {source.many} with {len(passes)} networks")
    with console.track("embedding", total * len(passes)) as advance:
        forecast = _Forecast(total * len(passes), source.many, console)
        for number, one in enumerate(passes):

            def told(done: int) -> None:
                advance(done, source.many)
                forecast(done)

            before = number * total
            first = _embedded(one, train, before, told)
            second = _embedded(one, test, before + len(train), told) if test else {}
            for output, row in one.rows.items():
                rows.pairs[row] = first[output], second.get(output)
                rows.functions[row] = _function(one, output)
    return rows


def sample(source: Source) -> tuple[Source, dict[str, int]]:
    """Up to 1,000 items of each part, by a seeded draw among the labelled ones, and their counts.

    Args:
        source: the items; where none has a label, all can be drawn.
    """
    labels = source.labels
    known = np.arange(len(source))
    if labels is not None and (labels >= 0).any():
        known = np.flatnonzero(labels >= 0)
    split = source.splits if {"train", "test"} <= source.splits.keys() else {"items": known}
    drawn = {}
    for name, positions in split.items():
        inside = np.intersect1d(positions, known)
        drawn[name] = np.sort(np.random.default_rng(0).permutation(inside)[:QUICK])
    part = source.subset(np.sort(np.concatenate(list(drawn.values()))))
    return part, {name: len(positions) for name, positions in drawn.items()}


def view_outputs(
    rows: Rows, subject: Subject, source: Source, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Every row's vectors of the same random views: name -> (N, V, width), N up to 1,000 items.

    Of the test part where it has two items or more. The views are those of the run's training.

    Args:
        rows: as `rows_of` gives them.
        subject: the encoder, whose run says how views are made.
        source: the items.
        say: called with a sentence if the views of the training are not known here.
    """
    train, test = parts_of(source)
    part = test if test is not None and len(test) > 1 else train
    part = part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[: label_free.ITEMS]))
    views = scored_views(subject.config, source, say)
    generator = torch.Generator().manual_seed(0)

    def vectors(drawn: list[Any], _: Tensor) -> list[Tensor]:
        return [
            torch.stack([function(view).float() for view in drawn], 1)
            for function in rows.functions.values()
        ]

    blocks = run_over(
        vectors,
        part,
        batch=BLOCK,
        view=lambda _, batch: [views(batch, generator) for _ in range(label_free.VIEWS)],
    )
    return {
        name: torch.cat(parts)
        for name, parts in zip(rows.functions, zip(*blocks, strict=True), strict=True)
    }


class _Forecast:
    """Says once, after five seconds of work, how long the rest will take where it is long."""

    def __init__(self, total: int, many: str, console: Console) -> None:
        self.total, self.many, self.console = total, many, console
        self.began, self.first, self.said = time.monotonic(), 0, False

    def __call__(self, done: int) -> None:
        spent = time.monotonic() - self.began
        if self.said or spent < FORECAST:
            if spent < 0.1:  # kept chunks cost nothing and forecast nothing
                self.first = done
            return
        self.said = True
        left = spent / max(1, done - self.first) * (self.total - done)
        if left > LONG:
            self.console.say(
                f"about {clock(left)} left for {self.total:,} passes over {self.many}; finished "
                "chunks are kept if you stop, and --quick answers first from a sample"
            )


def _embedded(
    one: _Pass, part: Source, before: int, progress: Callable[[int], None]
) -> dict[Output, Embeddings]:
    """The outputs of a pass on a part; `before` items were done earlier."""
    if one.side:
        part = replace(images_of(part, "a view of another size"), image_size=one.side)
    return embed_in_chunks(
        one.encoder, part, tuple(one.rows), progress=lambda done: progress(before + done)
    )


def _function(one: _Pass, output: Output) -> Function:
    """The vectors of a view by one pass of a network."""
    network: Function = one.encoder.features if output == "features" else one.encoder
    side = one.side
    if side is None:
        return network
    return lambda view: network(F.interpolate(view, size=(side, side), mode="area"))


def small_side(network: Encoder, source: ImageSource) -> int | None:
    """The side that a randomly initialised network of images sees; None: the encoder's own."""
    fixed = only_size(network, source.image_size) is not None
    return None if fixed or source.image_size <= SMALL else SMALL
