"""Evaluate an encoder of sentences: scored pairs (STS), partners of pairs, classes.

The baselines are bags of words, random weights and the starting weights.
"""

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
from ..encoders import AnyEncoder, TextEncoder
from ..encoders.inference import Output, outputs
from ..encoders.text import OWN
from ..errors import ConfigError
from ..functional import geometry
from ..runtime.console import Console
from ..training.loading import Subject, parts_of
from . import protocol, sentence_similarity
from .baselines import BagOfWords
from .verdicts import WORDS, against, percent

Array = np.ndarray[Any, Any]
Reader = Callable[[list[str]], Array]  # texts -> vectors (N, width)
PARTNERS = 5000  # pairs whose partners are searched, drawn by a fixed seed
MOST = 2000  # sentences that the label-free measures are computed on


def evaluate_pairs(
    subject: Subject, spec: str, console: Console, name: str = protocol.NAME
) -> dict[str, Any]:
    """Score an encoder on pairs with a similarity score: Spearman correlation and geometry.

    Args:
        subject: an encoder of sentences.
        spec: as `data.sts.open_pairs`.
        console: shows what is left out.
        name: the protocol, which is recorded.
    """
    pairs = open_pairs(spec)
    rows, baselines = readers(subject, pairs.texts, console)
    vectors = {name: read(pairs.texts) for name, read in rows.items()}
    scores = sentence_similarity.sts(vectors, pairs, baselines=baselines)
    result = {
        "protocol": name,
        "sts": {name: asdict(score) for name, score in scores["scores"].items()},
        "comparisons_of_sts": scores["comparisons"],
        "geometry": scores["measures"],
        "counts": {"pairs": len(pairs), "texts": len(pairs.texts), "skipped": len(pairs.skipped)},
        "skipped": pairs.skipped,
        "baselines": baselines,
    }
    return result | {"verdict": _verdict_of_pairs(subject, pairs, scores, baselines)}


def evaluate_sentences(
    subject: Subject,
    source: TextSource,
    full: bool,
    console: Console,
    name: str = protocol.NAME,
) -> dict[str, Any]:
    """Score an encoder on sentences: partners of pairs, or classes where there are labels.

    Args:
        subject: an encoder of sentences.
        source: sentences, or pairs in columns.
        full: also shares of the labels.
        console: shows progress.
        name: the protocol.
    """
    train, test = parts_of(source)
    rows, baselines = readers(subject, train.column(0), console)
    result: dict[str, Any] = {"protocol": name, "baselines": baselines}
    if source.columns > 1:
        own = (
            subject.run is not None
            and subject.run.manifest["data"]["fingerprint"] == source.fingerprint
        )
        part = (test or train) if own else source
        if len(part) > PARTNERS:
            part = part.subset(np.sort(np.random.default_rng(0).permutation(len(part))[:PARTNERS]))
        sides = {row: (read(part.column(0)), read(part.column(1))) for row, read in rows.items()}
        scores = sentence_similarity.partners(
            sides,
            baselines,
            texts=(part.column(0), part.column(1)),
            measure=protocol.intervals_of(name, len(part)),
        )
        result["partners"] = {
            row: {c: asdict(s) for c, s in cells.items()} for row, cells in scores["scores"].items()
        }
        result["comparisons_of_partners"] = [asdict(c) for c in scores["comparisons"]]
        result["verdict"] = _verdict_of_partners(subject, scores, baselines, len(part))
        shown = {row: first for row, (first, _) in sides.items()}
    elif source.labels is not None and (source.labels >= 0).any():
        pairs = {
            row: (_embedded(read, train), _embedded(read, test) if test else None)
            for row, read in rows.items()
        }
        table = protocol.score(
            pairs,
            headline=subject.headline,
            few_row=subject.few_row,
            baselines=baselines,
            full=full,
            name=name,
            classes=source.classes,
        )
        result |= table.to_dict()
        shown = {row: (b or a).vectors for row, (a, b) in pairs.items()}
    else:
        some = train.column(0)[:MOST]
        shown = {row: read(some) for row, read in rows.items()}
        result["verdict"] = (
            "These sentences have neither partners nor labels, so accuracy on a task cannot be "
            "measured; evaluate on scored pairs: "
            f"tellapart eval {subject.name} --data sts:FILE (or sts:lee)."
        )
    result["geometry"] = {row: _geometry(vectors[:MOST]) for row, vectors in shown.items()}
    return result


def readers(
    subject: Subject, texts: list[str], console: Console
) -> tuple[dict[str, Reader], tuple[str, ...]]:
    """Functions from texts to vectors, by the name of their row, and the names of the baselines.

    Args:
        subject: an encoder of sentences.
        texts: what the bags of words are fitted to; no label or score is read.
        console: says where the starting weights are no longer available.

    Raises:
        ConfigError: not an encoder of sentences.
    """
    encoder = subject.encoder
    # scored pairs (sts:) may be asked of any subject; mypy learns the type here
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"{subject.name} is not an encoder of sentences")
    rows: dict[str, Reader] = {
        "bag of words": BagOfWords(texts, weighed=False),
        "TF-IDF": BagOfWords(texts),
    }
    fresh = encoders.rebuild(encoder.description, seed=subject.config.seed if subject.config else 0)
    rows["random init"] = reader(fresh)
    config: Any = subject.config
    if config is not None and config.encoder not in OWN:
        try:
            shared = {
                k: encoder.description[k] for k in ("pooler", "max_length", "head_kind", "dim")
            }
            rows["starting weights"] = reader(
                encoders.text.build(
                    config.encoder, seed=config.seed, revision=config.revision, **shared
                )
            )
        except ConfigError as error:
            console.say(
                f"the starting weights cannot be loaded, so the table has no row for them: {error}"
            )
    baselines = tuple(rows)
    rows[subject.headline] = reader(encoder)
    if subject.run:
        rows["trained embedding"] = reader(encoder, "embedding")
    return rows, baselines


def reader(encoder: AnyEncoder, output: Output = "features") -> Reader:
    """A function from texts to vectors (N, width) by an encoder.

    Args:
        encoder: an encoder of sentences.
        output: "features" or "embedding".
    """

    def read(texts: list[str]) -> Array:
        ids = [str(i) for i in range(len(texts))]
        source = TextSource(
            name="texts", all_ids=ids, all_labels=None, classes=(), parts={}, fingerprint="",
            texts=[(text,) for text in texts],
        )  # fmt: skip
        vectors: Array = outputs(encoder, source, (output,))[output].numpy()
        return vectors

    return read


def _embedded(read: Reader, part: TextSource) -> Embeddings:
    return Embeddings(read(part.column(0)), part.ids, part.labels)


def _geometry(vectors: Array) -> dict[str, float]:
    z = geometry.unit_rows(torch.from_numpy(vectors))
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
    shown = int(c["low"] > 0) - int(c["high"] < 0)
    return (
        f"Spearman correlation with human scores on {len(pairs):,} pairs of {pairs.name}: "
        f"{scores[subject.headline].value:.3f}, {WORDS[shown]} the best baseline, {best} "
        f"({c['difference']:+.3f}, 95 % interval {c['low']:+.3f} to {c['high']:+.3f})."
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
    value = scores[subject.headline]["R@1"].value
    return f"R@1 of the partner among {count:,} sentences: {percent(value)}, {against(c)}."
