"""SimCSE (Gao et al., EMNLP 2021, arXiv 2104.08821)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.text import TextEncoder, mask_token
from ..errors import ConfigError
from ..functional import losses
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out
from .options import SimCSEOptions as SimCSEOptions


class SimCSE(Objective):
    """A sentence, encoded twice with dropout, is matched among the batch; or a pair is matched.

    Formula: -log exp(s_ii / tau) / sum_j exp(s_ij / tau), s_ij the cosine of sentence i's first and
    j's second pass (eq. 4); with pairs, j's partner; with hard negatives,
    sum_j (exp(s_ij / tau) + w_ij exp(s-_ij / tau)), w = 1 except for the own one (eq. 5 and
    appendix).
    When: sentences; `--data sentences.txt` alone, or pairs (entailment) in columns, a third column
    holding contradictions.
    Good to know: start from a pretrained encoder: from random weights dropout alone teaches little.
    The features are the pooled vector before the head; the head serves the loss alone. The two
    passes must drop different values. Other views (`--word-deletion`, ...) act beside dropout.
    Chance: ln N for sentences and pairs; ln(2N - 1 + e^weight) with hard negatives, which is ln 2N
    at the default weight of 0.
    Relations: InfoNCE in one direction (`simclr` compares both directions and all views); with a
    queue of earlier sentences, `moco` on text (CERT).
    Published: STS average, BERT-base: 76.3 without labels, 81.6 with entailment pairs.
    """

    def __init__(self, options: SimCSEOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed, self.views = options, seed, 2
        self.columns = 1
        self.vocabulary: nn.Module = nn.Identity()
        self.masked = 0
        self.texts: Tensor | None = None  # (S, V) equal numbers for equal texts; None: no repeats

    def attach(self, encoder: Any, source: Any) -> None:
        """Learn whether the source holds pairs; make the head that names hidden tokens."""
        if "text" not in encoder.kinds:
            raise ConfigError("simcse requires sentences: --data sentences.txt or pairs.tsv")
        self.columns = source.columns
        self.texts = _numbered(source)
        self.views = 2 if self.columns == 1 else 1  # a pair brings its two sides in one view
        if self.options.mlm:
            self.masked = mask_token(encoder.tokenizer)
            if encoder.body.tokens.weight.shape[1] != encoder.width:
                raise ConfigError(
                    "--objective.mlm needs token embeddings as wide as the network; these are not"
                )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.vocabulary = nn.Sequential(
                    nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.LayerNorm(encoder.width)
                )

    def embed(self, encoder: Any, batch: Batch) -> Embedded:
        first, *rest = batch.views
        sides = [first, *rest]
        if self.columns > 1:
            sides = [
                {name: value[:, i] for name, value in first.items()} for i in range(self.columns)
            ]
        device = encoder.device
        state = (
            torch.get_rng_state(),
            torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )
        embedded: Embedded = {}
        for i, side in enumerate(sides):
            if i and self.options.same_mask:
                torch.set_rng_state(state[0])
                if state[1] is not None:
                    torch.cuda.set_rng_state(state[1], device)
            embedded[f"z{i}" if i else "z"] = encoder(side)
        if self.options.mlm:
            embedded["mlm"] = self._hidden_tokens(encoder, sides[0])
        return embedded

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        options = self.options
        a, b, hard = embedded["z"], embedded["z1"], embedded.get("z2")
        others = None if distributed.world() == 1 else _others(b, hard)
        if self.texts is None:
            loss = losses.info_nce_hard(
                a,
                b,
                hard,
                temperature=options.temperature,
                weight=options.hard_negative_weight,
                others=others,
            )
        else:
            same = _equal_texts(self.texts[batch.index.cpu()].to(a.device), hard is not None)
            loss = _masked(a, b, hard, others, same, options)
        logs = {"positive": (a * b).sum(1).mean().detach()}
        if "mlm" in embedded:
            logs["mlm"] = embedded["mlm"].mean().detach()
            loss = loss + options.mlm * embedded["mlm"].mean()
        return Out(loss, logs, {"z": a.detach()})

    def chance(self, n: int) -> float | None:
        if self.options.mlm:
            return None
        return (
            math.log(2 * n - 1 + math.exp(self.options.hard_negative_weight))
            if self.columns == 3
            else math.log(n)
        )

    def information_limit(self, n: int) -> float | None:
        # hard negatives are not drawn from the marginal distribution
        return None if self.options.mlm or self.columns == 3 else math.log(n)

    def _hidden_tokens(self, encoder: TextEncoder, side: dict[str, Tensor]) -> Tensor:
        """(N,) masked-language-model loss of each sentence; a tenth of the tokens stays visible."""
        ids, real = side["ids"], side["word"] >= 0
        hidden = (torch.rand(ids.shape, device=ids.device) < self.options.mlm_rate) & real
        shown = torch.rand(ids.shape, device=ids.device) < 0.1
        x = encoder.layers(side | {"ids": ids.masked_fill(hidden & ~shown, self.masked)})[-1]
        table = encoder.body.tokens.weight
        each = x.new_zeros(ids.shape)
        if bool(hidden.any()):
            logits = self.vocabulary(x[hidden]) @ table.T
            each = each.masked_scatter(
                hidden, F.cross_entropy(logits.float(), ids[hidden], reduction="none")
            )
        return each.sum(1) / hidden.sum(1).clamp_min(1)


def _numbered(source: Any) -> Tensor | None:
    """(S, V) equal numbers for equal texts; None where no text of two items is equal."""
    numbers: dict[str, int] = {}
    rows = [
        [numbers.setdefault(text, len(numbers)) for text in source.texts[row]]
        for row in source.rows
    ]
    if len(numbers) == sum(len(set(row)) for row in rows):
        return None
    return torch.tensor(rows)


def _equal_texts(texts: Tensor, hard: bool) -> Tensor:
    """(N, keys) bool: which keys have the text of a row's sentence or of its partner.

    Such a key is the same item, so it is no negative. The keys stand in the order of `_masked`:
    partners, hard negatives, and those of the other ranks.

    Args:
        texts: (N, V) text numbers of the rows.
        hard: whether there are hard negatives.
    """
    first, second = texts[:, 0], texts[:, 1 if texts.shape[1] > 1 else 0]
    columns = [second, texts[:, 2]] if hard else [second]
    elsewhere = [o for o in map(distributed.others, columns) if o is not None]
    keys = torch.cat(columns + elsewhere)
    return (keys == first[:, None]) | (keys == second[:, None])


def _masked(
    a: Tensor,
    b: Tensor,
    hard: Tensor | None,
    others: Tensor | None,
    same: Tensor,
    options: SimCSEOptions,
) -> Tensor:
    """`losses.info_nce_hard` without the keys that are the same item as a row's partner.

    The row's own partner and hard negative stay.
    """
    count = len(a)
    keys = torch.cat([x for x in (b, hard, others) if x is not None])
    logits = a @ keys.T / options.temperature
    own = torch.zeros_like(same)
    rows = torch.arange(count, device=a.device)
    own[rows, rows] = True
    if hard is not None:
        own[rows, rows + count] = True
        bonus = torch.zeros_like(logits)
        bonus[rows, rows + count] = options.hard_negative_weight
        logits = logits + bonus
    total = logits.masked_fill(same & ~own, float("-inf")).logsumexp(1)
    return (total - (a * b).sum(1) / options.temperature).mean()


def _others(b: Tensor, hard: Tensor | None) -> Tensor:
    """The terms that other ranks add to the denominators: their partners and hard negatives."""
    parts = [distributed.others(x) for x in (b, hard) if x is not None]
    return torch.cat([p for p in parts if p is not None])
