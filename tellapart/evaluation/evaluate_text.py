"""What `eval` does with sentences: scored pairs (STS), partners, classes, beside bags of words and the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from .. import encoders
from ..data import TextSource
from ..data.sts import ScoredPairs, open_pairs
from ..embeddings.embeddings import Embeddings
from ..encoders import TextEncoder
from ..encoders.inference import Output, outputs
from ..encoders.text import OWN
from ..errors import ConfigError
from ..functional import geometry
from ..runtime.console import Console
from ..training.loading import Subject, parts_of
from . import protocol, sentence_similarity
from .baselines import BagOfWords

Array = np.ndarray[Any, Any]
Reader = Callable[[list[str]], Array]  # texts -> vectors (N, width)
PARTNERS = 5000  # pairs whose partners are looked for, drawn by a fixed seed
MOST = 2000  # sentences that the label-free measures are taken on


def judge_pairs(subject: Subject, spec: str, console: Console) -> dict[str, Any]:
    """What eval.json holds of an encoder on scored pairs: Spearman's correlation, alignment, uniformity."""
    pairs = open_pairs(spec)
    rows, baselines = readers(subject, pairs.texts, console)
    vectors = {name: read(pairs.texts) for name, read in rows.items()}
    found = sentence_similarity.sts(vectors, pairs, baselines=baselines)
    result = {
        "protocol": protocol.NAME,
        "sts": {name: asdict(score) for name, score in found["scores"].items()},
        "comparisons_of_sts": found["comparisons"],
        "geometry": found["measures"],
        "counts": {"pairs": len(pairs), "texts": len(pairs.texts), "skipped": len(pairs.skipped)},
        "skipped": pairs.skipped,
        "baselines": baselines,
    }
    return result | {"verdict": _verdict_of_pairs(subject, pairs, found, baselines)}


def judge_sentences(
    subject: Subject, source: TextSource, full: bool, console: Console
) -> dict[str, Any]:
    """What eval.json holds on a source of sentences: partners of pairs, classes where there are labels, geometry."""
    train, test = parts_of(source)
    rows, baselines = readers(subject, train.column(0), console)
    result: dict[str, Any] = {"protocol": protocol.NAME, "baselines": baselines}
    if source.columns > 1:
        own = (
            subject.run is not None
            and subject.run.manifest["data"]["fingerprint"] == source.fingerprint
        )
        part = (test or train) if own else source
        if len(part) > PARTNERS:
            part = part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[:PARTNERS]))
        sides = {name: (read(part.column(0)), read(part.column(1))) for name, read in rows.items()}
        found = sentence_similarity.partners(sides, baselines)
        result["partners"] = {
            row: {c: asdict(s) for c, s in cells.items()} for row, cells in found["scores"].items()
        }
        result["comparisons_of_partners"] = [asdict(c) for c in found["comparisons"]]
        result["verdict"] = _verdict_of_partners(subject, found, baselines, len(part))
        shown = {name: first for name, (first, _) in sides.items()}
    elif source.labels is not None and (source.labels >= 0).any():
        pairs = {
            name: (_embedded(read, train), _embedded(read, test) if test else None)
            for name, read in rows.items()
        }
        table = protocol.score(
            pairs,
            headline=subject.headline,
            few_row=subject.few_row,
            baselines=baselines,
            full=full,
        )
        result |= table.to_dict()
        shown = {name: (b or a).vectors for name, (a, b) in pairs.items()}
    else:
        some = train.column(0)[:MOST]
        shown = {name: read(some) for name, read in rows.items()}
        result["verdict"] = (
            "These sentences have neither partners nor labels, so nothing can tell how good the encoder is for your "
            f"task; judge it on scored pairs: tellapart eval {subject.name} --data sts:FILE (or sts:lee)."
        )
    result["geometry"] = {name: _geometry(vectors[:MOST]) for name, vectors in shown.items()}
    return result


def readers(
    subject: Subject, texts: list[str], console: Console
) -> tuple[dict[str, Reader], tuple[str, ...]]:
    """What makes vectors of texts, by the name of its row, and which of them are baselines.

    Args: texts: what the bags of words know beside the run's own training part; no label or score is read.
    """
    encoder = subject.encoder
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"{subject.name} is no encoder of sentences")
    rows: dict[str, Reader] = {
        "bag of words": BagOfWords(texts, weighed=False),
        "TF-IDF": BagOfWords(texts),
    }
    fresh = encoders.rebuild(encoder.description, seed=subject.config.seed if subject.config else 0)
    if isinstance(fresh, TextEncoder):
        rows["random init"] = reader(fresh)
    config: Any = subject.config
    if config is not None and config.encoder not in OWN:
        try:
            shared = {
                k: encoder.description[k] for k in ("pooler", "max_length", "head_kind", "dim")
            }
            rows["starting weights"] = reader(
                encoders.text.build(config.encoder, seed=config.seed, **shared)
            )
        except ConfigError as error:
            console.say(f"without a row for the starting weights, which are gone: {error}")
    baselines = tuple(rows)
    rows[subject.headline] = reader(encoder)
    if subject.run:
        rows["trained embedding"] = reader(encoder, "embedding")
    return rows, baselines


def reader(encoder: TextEncoder, output: Output = "features") -> Reader:
    """What makes vectors of texts by an encoder."""

    def read(texts: list[str]) -> Array:
        ids = [str(i) for i in range(len(texts))]
        source = TextSource(
            name="texts", all_ids=ids, all_labels=None, classes=(), parts={}, fingerprint="",
            texts=[(text,) for text in texts],
        )  # fmt: skip
        found: Array = outputs(encoder, source, (output,))[output].numpy()
        return found

    return read


def _embedded(read: Reader, part: TextSource) -> Embeddings:
    return Embeddings(read(part.column(0)), part.ids, part.labels)


def _geometry(vectors: Array) -> dict[str, float]:
    z = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    return {
        "uniformity": float(geometry.uniformity(z)),
        "effective rank": float(geometry.effective_rank(z)),
    }


def _verdict_of_pairs(
    subject: Subject, pairs: ScoredPairs, found: dict[str, Any], baselines: tuple[str, ...]
) -> str:
    scores, comparisons = found["scores"], found["comparisons"][subject.headline]
    best = max(baselines, key=lambda b: scores[b].value)
    c = comparisons[best]
    words = (
        "better than"
        if c["low"] > 0
        else "worse than"
        if c["high"] < 0
        else "no difference shown from"
    )
    value = scores[subject.headline].value
    return (
        f"On {len(pairs):,} pairs of {pairs.name} its cosines rank as people do by {value:.3f} (Spearman), {words} the "
        f"best baseline, {best} ({c['difference']:+.3f}, 95 % interval {c['low']:+.3f} to {c['high']:+.3f})."
    )


def _verdict_of_partners(
    subject: Subject, found: dict[str, Any], baselines: tuple[str, ...], count: int
) -> str:
    scores = found["scores"]
    best = max(baselines, key=lambda b: scores[b]["R@1"].value)
    c = next(
        c
        for c in found["comparisons"]
        if (c.row, c.baseline, c.column) == (subject.headline, best, "R@1")
    )
    words = {1: "better than", -1: "worse than", 0: "no difference shown from"}[c.shown]
    return (
        f"Among {count:,} sentences it finds the partner first in {scores[subject.headline]['R@1'].value:.1%}, {words} "
        f"the best baseline, {best} ({c.difference * 100:+.1f} points, 95 % interval {c.low * 100:+.1f} to "
        f"{c.high * 100:+.1f})."
    )
