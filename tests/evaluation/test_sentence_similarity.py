"""Partners of sentences: equal texts are the same item."""

from __future__ import annotations

import numpy as np
import pytest

from tellapart.evaluation import sentence_similarity


def _shared(questions, answers, seed):
    """Vectors of answers, each shared by several questions, and which answer each one has."""
    vectors = np.random.default_rng(seed).normal(size=(answers, 16))
    which = np.random.default_rng(seed).permutation(questions) % answers
    return vectors[which], which


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("questions", "answers"), [(40, 10), (40, 2), (30, 30), (1500, 5)])
def test_a_perfect_encoder_finds_partners_that_several_share(questions, answers, seed):
    b, which = _shared(questions, answers, seed)
    other = np.random.default_rng(9).normal(size=b.shape)
    found = sentence_similarity.partners({"perfect": (b, b), "random": (other, b)}, ("random",))
    scores = found["scores"]["perfect"]
    assert {c: s.value for c, s in scores.items()} == dict.fromkeys(scores, 1.0)
    assert scores["R@1"].low < 1
    texts = ([], [f"answer {w}" for w in which])
    assert (sentence_similarity.partner(b, b, texts=texts)["R@1"] == 1).all()


def test_the_rank_among_distinct_texts_is_a_loop():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(50, 8)), random.normal(size=(50, 8))
    texts = [f"t{i // 2}" for i in range(50)]
    b[1::2] = b[::2]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    wanted = []
    for i in range(50):
        best = {t: unit[0][i] @ unit[1][2 * int(t[1:])] for t in set(texts)}
        rank = 1 + sum(s > best[texts[i]] + 1e-12 for t, s in best.items() if t != texts[i])
        wanted.append(1 / rank)
    found = sentence_similarity.partner(a, b, texts=([], texts))["MRR"]
    assert found == pytest.approx(wanted)


def test_an_encoder_that_maps_every_text_to_one_point_is_not_perfect():
    b, _ = _shared(40, 10, 0)
    point = np.ones_like(b)
    rows = {"collapsed": (point, point), "words": (b, b)}
    found = sentence_similarity.partners(rows, ("words",))["scores"]
    assert found["collapsed"]["R@1"].value == 0.0
    assert found["words"]["R@1"].value == 1.0
