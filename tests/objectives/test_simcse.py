"""SimCSE against the paper's equation: hard negatives, dropout views, pieces of a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from samples import open_like, seeded, small_text_encoder, some_sentences
from torch.nn import functional as F

import tellapart as ta
from tellapart import objectives
from tellapart.data import open_source
from tellapart.errors import ConfigError
from tellapart.functional import losses
from tellapart.objectives import Batch, SimCSEOptions, simcse
from tellapart.training import presets
from tellapart.training.trainer import Trainer

pytest.importorskip("tokenizers")
SMALL = {"width": 32, "layers": 1, "vocabulary": 400, "dim": 16, "threads": 1, "batch_size": 16}


def _rows(n=6, seed=0):
    return F.normalize(torch.randn(n, 8, generator=seeded(seed), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("weight", [0.0, 0.7, -1.0])
def test_hard_negatives_are_the_papers_equation(weight):
    a, b, h = (_rows(seed=i) for i in range(3))
    tau, total = 0.3, []
    for i in range(len(a)):
        below = sum(math.exp(float(a[i] @ b[j]) / tau) for j in range(len(a)))
        below += sum(
            math.exp(float(a[i] @ h[j]) / tau + (weight if i == j else 0)) for j in range(len(a))
        )
        total.append(-float(a[i] @ b[i]) / tau + math.log(below))
    found = losses.info_nce_hard(a, b, h, temperature=tau, weight=weight)
    assert float(found) == pytest.approx(np.mean(total))
    assert torch.autograd.gradcheck(
        lambda *z: losses.info_nce_hard(*z, temperature=tau, weight=weight),
        [z.clone().requires_grad_() for z in (a, b, h)],
    )


def _simcse(options, encoder, source):
    objective = objectives.build("simcse", options, 0)
    objective.attach(encoder, source)
    return objective


def test_two_passes_differ_by_dropout_unless_the_mask_is_kept():
    encoder = small_text_encoder(dropout=0.3).train()
    source = encoder.prepared(open_like(some_sentences(8)))
    view = source.read(torch.arange(8))
    batch = Batch([view, view], torch.arange(8))
    objective = _simcse(SimCSEOptions(), encoder, source)
    found = objective.embed(encoder, batch)
    assert not torch.allclose(found["z"], found["z1"])
    same = _simcse(SimCSEOptions(same_mask=True), encoder, source).embed(encoder, batch)
    assert torch.equal(same["z"], same["z1"])
    nothing = found["z"].detach() * 0
    loss = objective.loss({"z": nothing, "z1": nothing}, batch, seeded()).loss
    assert float(loss) == pytest.approx(objective.chance(8))


def test_hidden_tokens_are_named_and_reach_the_encoder():
    encoder = small_text_encoder().train()
    source = encoder.prepared(open_like(some_sentences(8)))
    view = source.read(torch.arange(8))
    objective = _simcse(SimCSEOptions(mlm=0.1), encoder, source)
    embedded = objective.embed(encoder, Batch([view, view], torch.arange(8)))
    assert embedded["mlm"].shape == (8,)
    assert float(embedded["mlm"].detach().mean()) > 1
    objective.loss(embedded, Batch([view, view], torch.arange(8)), seeded()).loss.backward()
    assert float(objective.vocabulary[0].weight.grad.abs().sum()) > 0


def test_simcse_wants_sentences(digits):
    with pytest.raises(ConfigError, match="has no settings for images"):
        ta.train("simcse", data="digits", out="nowhere")


def test_pieces_of_a_batch_give_its_gradient_dropout_included(lines):
    """The second pass over a piece draws the same dropout as the first."""
    source = open_source(str(lines))
    states = []
    for micro in (None, 8):
        config = presets.simcse_text()
        config = type(config)(
            **{
                **vars(config),
                **SMALL,
                "dropout": 0.0,
                "micro_batch": micro,
                "steps": 2,
                "lr": 1e-2,
                "precision": "float32",
            }
        )
        trainer = Trainer("simcse", config, source)
        for _ in trainer:
            pass
        states.append(trainer.encoder.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-4, rtol=1e-3)
    replayed = Trainer("simcse", type(config)(**{**vars(config), "dropout": 0.5}), source)
    assert all(math.isfinite(step.loss) for step in replayed)


def test_rows_of_other_processes_complete_the_sum():
    a, b, h = (_rows(8, seed=i) for i in range(3))
    whole = losses.info_nce_hard(a, b, h)
    halves = [
        losses.info_nce_hard(a[s], b[s], h[s], others=torch.cat([b[o], h[o]]))
        for s, o in ((slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4)))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_equal_texts_are_no_negatives(columns):
    """A loop over the batch, with every sentence and partner that repeats left out."""
    n, tau, weight = 6, 0.3, 0.7
    a, b, h = (_rows(n, seed=i) for i in range(3))
    hard = h if columns == 3 else None
    texts = torch.tensor(
        [[0, 10, 20], [1, 10, 21], [2, 12, 22], [0, 13, 10], [4, 2, 24], [5, 15, 25]]
    )
    texts = texts[:, :columns]
    options = SimCSEOptions(temperature=tau, hard_negative_weight=weight)
    same = simcse._equal_texts(texts, hard is not None)
    found = simcse._masked(a, b, hard, None, same, options)
    total = []
    for i in range(n):
        mine = {int(texts[i, 0]), int(texts[i, min(1, columns - 1)])}
        below = 0.0
        for j in range(n):
            if i == j or int(texts[j, min(1, columns - 1)]) not in mine:
                below += math.exp(float(a[i] @ b[j]) / tau)
            if hard is not None and (i == j or int(texts[j, 2]) not in mine):
                below += math.exp(float(a[i] @ h[j]) / tau + (weight if i == j else 0))
        total.append(math.log(below) - float(a[i] @ b[i]) / tau)
    assert float(found) == pytest.approx(float(np.mean(total)))
    distinct = torch.arange(n * columns).view(n, columns)
    plain = losses.info_nce_hard(a, b, hard, temperature=tau, weight=weight)
    same = simcse._equal_texts(distinct, hard is not None)
    assert float(simcse._masked(a, b, hard, None, same, options)) == pytest.approx(float(plain))


def test_only_sources_with_repeats_are_masked(tmp_path):
    lines = [f"question {i} of many\tanswer {i % 3} to them" for i in range(12)]
    (tmp_path / "shared.tsv").write_text("\n".join(lines))
    (tmp_path / "own.tsv").write_text("\n".join(f"question {i}\tanswer {i}" for i in range(12)))
    shared = open_source(str(tmp_path / "shared.tsv"))
    assert simcse._numbered(shared).shape == (12, 2)
    assert simcse._numbered(open_source(str(tmp_path / "own.tsv"))) is None
