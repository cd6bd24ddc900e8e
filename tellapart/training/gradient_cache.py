"""The loss of one step and its gradient: the whole batch at once, or embedded piece by piece.

Gradient caching (Gao et al. 2021, arXiv 2101.06983): contrastive losses tie every row of a batch to every other,
so that accumulating over small batches is another loss. Here the pieces are embedded without a graph, the loss
and its gradient are taken over the embeddings of the whole batch, and each piece is embedded once more to send its
rows' gradient on into the network. Exact wherever a row's embedding does not depend on its piece; BatchNorm makes
it depend, unless it is split: pieces are made of whole groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..encoders import AnyEncoder
from ..encoders.norms import batchnorms
from ..objectives import Batch, Embedded, Objective, Out


class Pieces(NamedTuple):
    """A batch of `size` instances, to be had in parts.

    `part(start, stop)` makes the views of these rows and seeds the global random state, the same every time it is
    asked; `rows` is the batch without its views.
    """

    size: int
    part: Callable[[int, int], Batch]
    rows: Batch


Backward = Callable[[], None]


def whole(
    objective: Objective,
    encoder: AnyEncoder,
    pieces: Pieces,
    noise: torch.Generator,
    autocast: torch.autocast,
) -> tuple[Out, Backward]:
    """The loss of a batch embedded at once, and what computes its gradient."""
    batch = pieces.part(0, pieces.size)
    with autocast:
        embedded = objective.embed(encoder, batch)
    out = objective.loss(embedded, pieces.rows, noise)
    return out, out.loss.backward


def cached(
    objective: Objective,
    encoder: AnyEncoder,
    pieces: Pieces,
    noise: torch.Generator,
    autocast: torch.autocast,
    micro: int,
) -> tuple[Out, Backward]:
    """The same loss and gradient with the network run on `micro` instances at a time."""
    bounds = piece_bounds(pieces.size, micro, encoder.bn_rows if batchnorms(encoder) else None)

    def embed(start: int, stop: int) -> Embedded:
        batch = pieces.part(start, stop)
        with autocast:
            return objective.embed(encoder, batch)

    with torch.no_grad(), frozen_statistics(encoder, objective):
        parts = [embed(*bound) for bound in bounds]
    embedded = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    leaves = {
        name: value.requires_grad_()
        for name, value in embedded.items()
        if value.is_floating_point()
    }
    out = objective.loss(embedded, pieces.rows, noise)

    def backward() -> None:
        out.loss.backward()
        for start, stop in bounds:
            _send_on(
                embed(start, stop),
                {n: v.grad[start:stop] for n, v in leaves.items() if v.grad is not None},
            )

    return out, backward


def piece_bounds(size: int, micro: int, group: int | None = None) -> list[tuple[int, int]]:
    """Where the pieces of a batch begin and end; a last one of one row (BatchNorm refuses it) joins the one before.

    group: of a split BatchNorm, which makes size // group groups, the first ones a row larger; each piece then holds
    whole groups, as many as `micro` has room for and one at least, and its own split is that of the batch.

    >>> piece_bounds(7, 3), piece_bounds(8, 3), piece_bounds(10, 4, group=3)
    ([(0, 3), (3, 7)], [(0, 3), (3, 6), (6, 8)], [(0, 4), (4, 7), (7, 10)])
    """
    if group and size >= 2 * group:
        least, more = divmod(size, size // group)
        ends = [i * least + min(i, more) for i in range(1, size // group + 1)]
        starts = [0]
        for end, following in itertools.pairwise(ends):
            if following - starts[-1] > micro:
                starts.append(end)
    else:
        starts = list(range(0, size, micro))
    if len(starts) > 1 and size - starts[-1] == 1 and micro > 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], size], strict=True))


def _send_on(part: Embedded, grads: dict[str, Tensor]) -> None:
    names = [name for name in grads if part[name].requires_grad]
    torch.autograd.backward([part[name] for name in names], [grads[name] for name in names])


@contextmanager
def frozen_statistics(*modules: nn.Module) -> Iterator[None]:
    """BatchNorm normalises by its batch inside, as in training, but keeps its running statistics as they are."""
    norms = [norm for norm in batchnorms(*modules) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
