"""Measures of an encoder while it trains: label-free measures, and k-NN on a held-out part.

The encoder is read in eval mode with random numbers of its own, and nothing is written: the weights
are those of a training without it.

Shapes: N items, V views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Source, modality_of
from ..data.sampler import generator
from ..embeddings.embeddings import Embeddings
from ..encoders import AnyEncoder
from ..encoders.inference import run_over
from ..errors import ConfigError
from ..functional import geometry
from ..training.build import watched_views
from ..training.config import CommonConfig
from ..training.resolve import held_out
from ..training.session import Look
from ..views import first_view
from . import label_free
from .knn import knn, leave_one_out_labels

VIEWS = 4  # of each watched item
CHOOSES = "view retrieval"  # the label-free criterion (studies/unlabelled.json)
FEW = "few_label_knn"
NEIGHBOURS = 20
BATCH = 128
SHARE = 0.03  # of the passes since the last look that a look may cost; forward counts a third
ENOUGH = 16  # held-out items, at least; otherwise training items are measured
LEAST = 100  # images below which a look says nothing


class Watch:
    """Watches the trainings of one configuration on one source.

    Args:
        config: of the training.
        source: the whole source.
        batch: items in a batch.
        views_per_item: of the objective, for the cost of a step.

    Raises:
        ConfigError: `eval_every` steps are too few for a look within 5 % of the time.
        DataError: bad labels.
    """

    def __init__(
        self, config: CommonConfig, source: Source, *, batch: int, views_per_item: int
    ) -> None:
        part, held = held_out(source, config)
        self.config, self.part = config, part
        seen = held if held and len(held) >= ENOUGH else part
        order = np.random.default_rng(config.seed).permutation(len(seen))
        self.sample = seen.subset(np.sort(order[: modality_of(source).watched_items]))
        self.labelled = part_labelled(source, config)
        self.bank = self.queries = None
        if config.eval_every and held:
            room = int(SHARE * config.eval_every * batch * views_per_item * 3)
            if room < LEAST:
                least = -(-LEAST * config.eval_every // max(1, room))
                raise ConfigError(
                    f"a look every {config.eval_every} steps costs more than 5 % of the time; "
                    f"give --eval-every {least} or more"
                )
            held, part = _with_labels(held, part)
            self.queries = _drawn(held, max(1, room // 4))
            self.bank = _drawn(part, max(1, room - len(self.queries)))

    @property
    def chooses_by(self) -> str:
        """The name of the measure that the choice goes by."""
        return FEW if self.labelled is not None else CHOOSES

    def checkpoint(self, encoder: AnyEncoder) -> Look:
        """Measures of a checkpoint, on the features of a fixed sample in fixed views.

        Args:
            encoder: in any mode.
        """
        z = self._view_features(encoder)
        if not torch.isfinite(z).all():  # the next step says so
            return Look({}, float("-inf"))
        measures = label_free.of_views(z) | label_free.of_vectors(_as_embeddings(z[:, 0]))
        row = {
            f"features_{name.replace(' ', '_').replace('-', '_')}": value
            for name, value in measures.items()
        }
        if self.labelled is not None:
            row[FEW] = few_label_knn(_embedded(encoder, self.labelled))
        return Look(row, row.get(FEW, measures[CHOOSES]))

    def look(self, encoder: AnyEncoder) -> dict[str, float]:
        """k-NN accuracy (k = 20) on the held-out part, or view retrieval without labels.

        Args:
            encoder: in any mode.
        """
        if self.queries is None or self.bank is None:
            return {}
        if any(p.labels is None or (p.labels < 0).all() for p in (self.queries, self.bank)):
            a, b = (self._seen(encoder, self.queries, name) for name in ("first", "second"))
            return {"held_out_view_retrieval": float(geometry.view_retrieval(a, b))}
        bank, queries = _embedded(encoder, self.bank), _embedded(encoder, self.queries)
        return {"held_out_knn": knn(bank, queries, k=NEIGHBOURS)[f"knn@{NEIGHBOURS}"]}

    def _view_features(self, encoder: AnyEncoder) -> Tensor:
        return torch.stack(
            [self._seen(encoder, self.sample, v, normalised=False) for v in range(VIEWS)], 1
        )

    def _seen(
        self, encoder: AnyEncoder, part: Source, name: Any, normalised: bool = True
    ) -> Tensor:
        """(N, F) features of one random view of every item, the same view each time."""
        device, views = encoder.device, watched_views(self.config, part)
        random = generator("watch", self.config.seed, name, device=device)
        z = torch.cat(
            run_over(
                lambda view, _: encoder.features(view).float().cpu(),
                part,
                module=encoder,
                device=device,
                batch=BATCH,
                view=lambda source, batch: views(first_view(source, batch), random),
            )
        )
        return geometry.unit_rows(z) if normalised else z


def _with_labels(held: Source, part: Source) -> tuple[Source, Source]:
    """Both parts' labelled items, where both have some."""
    if held.labels is None or part.labels is None:
        return held, part
    first, second = (np.flatnonzero(labels >= 0) for labels in (held.labels, part.labels))
    return (held.subset(first), part.subset(second)) if len(first) and len(second) else (held, part)


def _drawn(part: Source, count: int) -> Source:
    return part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[:count]))


def part_labelled(source: Source, config: CommonConfig) -> Source | None:
    """The items that `--labels` names, none of them of the test part."""
    if not config.labels:
        return None
    whole = source.split("train") if "train" in source.splits else source
    return whole.with_labels(config.labels)


def few_label_knn(items: Embeddings) -> float:
    """Leave-one-out k-NN accuracy among a few labelled items, k = 5 or fewer.

    Args:
        items: all labelled.
    """
    k = max(1, min(5, len(items) - 1))
    return float((leave_one_out_labels(items, k=k)[k] == items.known_labels).mean())


def _embedded(encoder: AnyEncoder, part: Source) -> Embeddings:
    """The features of a part, without folding BatchNorm: tracing would cost more each time."""
    features = run_over(
        lambda view, _: encoder.features(view).float().cpu(),
        part,
        module=encoder,
        device=encoder.device,
        batch=BATCH,
    )
    return Embeddings(torch.cat(features), part.ids, part.labels)


def _as_embeddings(z: Tensor) -> Embeddings:
    return Embeddings(z, [str(i) for i in range(len(z))])
