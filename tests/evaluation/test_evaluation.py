"""Evaluators: agreement with loops and scikit-learn, intervals, verdicts, bad input."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from tellapart.embeddings import Embeddings
from tellapart.embeddings.index import Index
from tellapart.errors import ConfigError, DataError
from tellapart.evaluation import (
    few_label,
    intervals,
    knn,
    linear,
    linear_probe,
    protocol,
    retrieval,
)
from tellapart.evaluation.few_label import balanced
from tellapart.evaluation.knn import best_k, knn_labels
from tellapart.evaluation.sgd_linear import RATES, sgd_linear
from tellapart.evaluation.verdicts import listed
from tellapart.functional import top_k


def _made(n=300, d=16, classes=5, seed=0, noise=0.6):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(classes, d))
    labels = random.integers(0, classes, n)
    vectors = centres[labels] * 0.4 + random.normal(size=(n, d)) * noise
    return Embeddings(vectors, [f"{seed}-{i}" for i in range(n)], labels)


TRAIN, TEST = _made(), _made(80, seed=1)


def _unit(x):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 20, 200])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_is_the_papers_vote_as_a_loop(k, temperature):
    rows, right = _unit(TRAIN.vectors), 0
    for vector, label in zip(_unit(TEST.vectors), TEST.labels, strict=True):
        similarity = rows @ vector
        votes = np.zeros(5)
        for j in np.argsort(-similarity)[:k]:
            votes[TRAIN.labels[j]] += math.exp(similarity[j] / temperature)
        right += votes.argmax() == label
    assert knn(TRAIN, TEST, k=k, temperature=temperature) == {f"knn@{k}": right / len(TEST)}


@pytest.mark.parametrize("k", [1, 5, 20, 200])
def test_knn_equals_scikit_learns_weighted_neighbours(k):
    model = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    model.fit(TRAIN.vectors, TRAIN.labels)
    assert knn(TRAIN, TEST, k=k)[f"knn@{k}"] == pytest.approx(
        model.score(TEST.vectors, TEST.labels), abs=1e-9
    )


def test_several_k_in_one_pass_and_in_tiles(monkeypatch):
    single = {k: knn(TRAIN, TEST, k=k)[f"knn@{k}"] for k in (1, 5, 20, 200)}
    monkeypatch.setattr(top_k, "ELEMENTS", 1000)
    assert knn(TRAIN, TEST, k=(200, 5, 1, 20)) == {f"knn@{k}": v for k, v in sorted(single.items())}


def test_k_above_the_set_takes_all_of_it():
    assert knn(TRAIN, TEST, k=1000)["knn@1000"] == knn(TRAIN, TEST, k=300)["knn@300"]


def test_leave_one_out_picks_the_k_of_best_accuracy():
    rows, scores = _unit(TRAIN.vectors), {}
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -2)
    for k in (1, 5, 20, 200):
        near = np.argsort(-similarity, 1)[:, :k]
        votes = np.zeros((300, 5))
        for i in range(300):
            for j in near[i]:
                votes[i, TRAIN.labels[j]] += math.exp(similarity[i, j] / 0.07)
        scores[k] = (votes.argmax(1) == TRAIN.labels).mean()
    assert best_k(TRAIN, (1, 5, 20, 200)) == max(scores, key=scores.get)


def test_leave_one_out_with_exact_copies_never_asks_the_item_itself():
    vectors = np.repeat(np.eye(4), 10, axis=0)
    train = Embeddings(vectors, list(map(str, range(40))), np.repeat([0, 1, 2, 3], 10))
    assert best_k(train, (1, 5)) in (1, 5)


def test_items_without_a_label_are_left_out():
    labels = TRAIN.labels.copy()
    labels[::2] = -1
    half = Embeddings(TRAIN.vectors, TRAIN.ids, labels)
    assert knn(half, TEST, k=5) == knn(TRAIN.take(np.arange(1, 300, 2)), TEST, k=5)


def test_ten_thousand_queries_by_a_million_rows_fit(monkeypatch):
    """Peak memory is one tile for any size: 10,000 x 1,000,000 similarities would take 40 GB."""
    made = []
    real = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *a, **o: made.append(real(*a, **o)) or made[-1]
    )
    top_k.top_k(torch.randn(600, 2), torch.randn(200_000, 2), 200)
    assert max(t.numel() for t in made) <= top_k.ELEMENTS


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_linear_probe_is_scikit_learn_with_the_cost_that_a_held_out_fifth_chooses(kind):
    def fitted(cost, rows):
        x = TRAIN.vectors[rows]
        mean, scale = x.mean(0), x.std(0) + 1e-6
        model = (
            LogisticRegression(C=cost, max_iter=200)
            if kind == "logistic"
            else LinearSVC(C=cost, dual=False)
        )
        model.fit((x - mean) / scale, TRAIN.labels[rows])
        return lambda vectors: model.predict((vectors - mean) / scale)

    held = np.random.default_rng(0).permutation(300) % 5 == 0
    hits = [
        (fitted(c, ~held)(TRAIN.vectors[held]) == TRAIN.labels[held]).mean()
        for c in linear.GRID[kind]
    ]
    best = fitted(linear.GRID[kind][int(np.argmax(hits))], np.ones(300, bool))
    assert linear_probe(TRAIN, TEST)[kind] == (best(TEST.vectors) == TEST.labels).mean()
    assert len({round(h, 3) for h in hits}) > 1, "the costs must differ for the choice to be tested"


def test_linear_probe_sees_every_class_of_a_set_in_cyclic_order():
    items = Embeddings(
        np.eye(5)[np.arange(500) % 5], [str(i) for i in range(500)], np.arange(500) % 5
    )
    assert linear.linear_labels(items, np.eye(5), rows=100)[0].tolist() == [0, 1, 2, 3, 4]


# retrieval ----------------------------------------------------------------------------------------


def test_retrieval_is_the_definitions_as_a_loop():
    z, labels = _unit(TEST.vectors), TEST.labels
    recall, precision, mean_ap = {k: [] for k in (1, 2, 4, 8)}, [], []
    for i in range(len(z)):
        similarity = z @ z[i]
        similarity[i] = -np.inf
        order = np.argsort(-similarity)[: len(z) - 1]
        same = labels[order] == labels[i]
        r = same.sum()
        for k in recall:
            recall[k].append(same[:k].any())
        precision.append(same[:r].mean())
        mean_ap.append(sum(same[: j + 1].mean() for j in range(r) if same[j]) / r)
    found = retrieval(TEST)
    assert {k: found[f"R@{k}"] for k in recall} == pytest.approx(
        {k: np.mean(v) for k, v in recall.items()}
    )
    assert found["R-precision"] == pytest.approx(np.mean(precision))
    assert found["mAP@R"] == pytest.approx(np.mean(mean_ap))
    clusters = KMeans(5, n_init=3, random_state=0).fit_predict(
        F.normalize(torch.from_numpy(TEST.vectors), dim=1)
    )
    assert found["NMI"] == pytest.approx(normalized_mutual_info_score(labels, clusters))


def test_retrieval_agrees_with_pytorch_metric_learning():
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    pytest.importorskip("faiss")
    z, labels = F.normalize(torch.from_numpy(TEST.vectors), dim=1), torch.from_numpy(TEST.labels)
    wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    theirs = calculator.AccuracyCalculator(include=wanted, device=torch.device("cpu")).get_accuracy(
        z, labels
    )
    ours = retrieval(TEST)
    assert [ours[n] for n in ("R@1", "R-precision", "mAP@R")] == pytest.approx(
        [theirs[n] for n in wanted], abs=1e-6
    )


def test_an_item_alone_in_its_class_is_found_but_asks_nothing():
    items = Embeddings(np.array([[1, 0], [0.9, 0.1], [0, 1.0]]), "abc", [0, 0, 1])
    assert retrieval(items, ks=(1,))["R@1"] == 1.0
    with pytest.raises(DataError, match="a class with two items"):
        retrieval(Embeddings(np.eye(2), "ab", [0, 1]))


def test_sgd_linear_learns_what_logistic_regression_learns():
    accuracy, rate = sgd_linear(TRAIN, TEST, epochs=30)
    assert rate in RATES
    assert accuracy == pytest.approx(linear_probe(TRAIN, TEST)["logistic"], abs=0.08)
    with pytest.raises(DataError, match="two classes"):
        sgd_linear(Embeddings(np.eye(2), "ab", [0, 0]), TEST)


def test_few_labels_are_balanced_seeded_and_chosen_inside():
    rows = balanced(TRAIN.labels, 10, seed=3)
    assert np.bincount(TRAIN.labels[rows]).tolist() == [10] * 5
    assert rows.tolist() == balanced(TRAIN.labels, 10, seed=3).tolist()
    accuracy, right = few_label(TRAIN, TEST, per_class=10, draws=3)
    assert right.shape == (80,)
    assert accuracy == pytest.approx(right.mean())
    assert accuracy > 0.4


def test_a_label_budget_is_per_class_or_a_share():
    assert few_label(TRAIN, TEST, per_class=None, share=0.2, draws=1)[0] > 0.4
    _, one = few_label(TRAIN, TEST, per_class=1, draws=1)
    chosen = TRAIN.take(balanced(TRAIN.labels, 1, seed=0))
    assert one.tolist() == (knn_labels(chosen, TEST.vectors, k=1)[1] == TEST.labels).tolist()
    for per_class, share in ((5, 0.1), (None, None), (0, None), (None, 2.0)):
        with pytest.raises(ConfigError):
            few_label(TRAIN, TEST, per_class=per_class, share=share)


def test_test_labels_choose_nothing():
    """Other test labels change the score and not one prediction."""
    shuffled = Embeddings(TEST.vectors, TEST.ids, np.roll(TEST.labels, 7))
    for k in (1, 20):
        assert np.array_equal(
            knn_labels(TRAIN, TEST.vectors, k=k)[k], knn_labels(TRAIN, shuffled.vectors, k=k)[k]
        )
    _, right = few_label(TRAIN, TEST, draws=2)
    _, other = few_label(TRAIN, shuffled, draws=2)
    same = np.equal(TEST.labels, shuffled.labels)
    assert np.array_equal(right[same], other[same])


FROZEN_V1 = {
    "knn@1": 0.52,
    "knn@5": 0.585,
    "knn@20": 0.615,
    "knn@200": 0.63,
    "knn@chosen": 0.63,
    "linear": 0.71,
    "1 label per class": 0.393,
    "4 labels per class": 0.53,
    "10 labels per class": 0.613,
    "16 labels per class": 0.67,
}
FROZEN_INTERVAL = (0.565, 0.695)  # of centred pixels, knn@200
FROZEN_V2 = FROZEN_V1 | {"knn@25": 0.63}


# the table ----------------------------------------------------------------------------------------


@functools.cache
def _table(better=0.2, worse=0.9, name="eval-v2", pixels=0.6):
    pairs = {
        "centred pixels": (_made(noise=pixels), _made(200, seed=1, noise=pixels)),
        "random init": (_made(noise=worse), _made(200, seed=1, noise=worse)),
        "trained features": (_made(noise=better), _made(200, seed=1, noise=better)),
        "trained embedding": (_made(noise=better), _made(200, seed=1, noise=better)),
    }
    return protocol.score(
        pairs, headline="trained embedding", baselines=("centred pixels", "random init"), name=name
    )


@pytest.mark.parametrize("name", ["eval-v1", "eval-v2"])
def test_a_better_encoder_is_called_better_and_a_worse_one_worse(name):
    table = _table(name=name)
    shown = {(c.row, c.column, c.baseline): c for c in table.comparisons}
    columns, trained = (
        set(table.scores["trained features"]),
        ("trained features", "trained embedding"),
    )
    assert shown.keys() == {
        (r, c, b) for r in trained for c in columns for b in ("centred pixels", "random init")
    }
    best = shown["trained embedding", "knn@200", "centred pixels"]
    assert best.shown == 1
    if name == "eval-v1":
        assert best.p == pytest.approx(2 / 1001)
    assert "significantly better than the best baseline, centred pixels" in table.verdict
    comparisons = _table(better=3.0, worse=3.0, name=name).comparisons
    worst = [c for c in comparisons if c.baseline == "centred pixels"]
    assert [c.shown for c in worst if c.column in ("knn@200", "linear")] == [-1] * 4


@pytest.mark.parametrize("name", ["eval-v1", "eval-v2"])
def test_an_equal_encoder_is_not_significantly_different(name):
    verdict = _table(better=0.6, name=name).verdict
    assert "not significantly different from the best baseline" in verdict


def test_the_verdict_of_v2_names_every_column_by_its_outcome():
    table = _table(better=0.57)
    outcome = {
        c.column: c.shown
        for c in table.comparisons
        if c.baseline == "centred pixels"
        and c.row == ("trained embedding" if c.column.startswith("knn@") else "trained features")
    }
    assert set(outcome.values()) >= {0, 1}, "both outcomes must occur for the sentence to be tested"
    lead, *lists = table.verdict.rstrip(".").split("; ")
    assert lead.startswith("k-NN accuracy of the trained embedding (k = 25): ")
    assert table.verdict.count(".\n") == 0
    named = {words: text for words, _, text in (part.partition(": ") for part in lists)}
    for words, shown in (("better", 1), ("not significantly different", 0), ("worse", -1)):
        wanted = [c for c, s in outcome.items() if s == shown and c != "knn@25"]
        text = named.get(words, named.get(f"also {words}", ""))
        assert text == listed(wanted)


def test_the_deciding_k_follows_from_the_smallest_class_alone():
    assert [protocol.deciding_k(n) for n in (1, 2, 3, 16, 139, 400, 6000)] == [
        1, 1, 1, 8, 69, 200, 200,
    ]  # fmt: skip
    other = _table(better=3.0, worse=3.0)
    assert other.deciding["column"] == _table().deciding["column"] == "knn@25"
    assert other.deciding["rule"] == "min(200, 0.5 x the smallest class of 50)"


@pytest.mark.parametrize(("items", "voters"), [(24, 40), (8, 40), (60, 150)])
def test_no_column_of_v2_claims_more_neighbours_than_there_are(items, voters):
    pair = (_made(voters, classes=3), _made(items, seed=1, classes=3))
    columns = protocol.score({"x": pair}, headline="x", few_row="x", baselines=()).scores["x"]
    assert all(int(c[4:]) <= voters for c in columns if c[4:].isdigit() and c[:4] == "knn@")
    verdict = protocol.score({"x": pair}, headline="x", few_row="x", baselines=()).verdict
    assert "200" not in verdict
    assert "no baseline to compare with" in verdict


@pytest.mark.parametrize("count", [5, 40, 400])
def test_all_correct_is_not_certain(count):
    for right in (np.ones(count), np.zeros(count)):
        score = intervals.wilson(right)
        assert 0 < score.high - score.low < 0.6
        assert score.low <= score.value <= score.high


@pytest.mark.parametrize("right", [36, 39, 40])
def test_wilson_is_scipys(right):
    from scipy.stats import binomtest

    low, high = binomtest(right, 40).proportion_ci(method="wilson")
    score = intervals.wilson(np.r_[np.ones(right), np.zeros(40 - right)])
    assert (score.low, score.high) == pytest.approx((low, high))


def test_wilson_of_averaged_answers_is_narrower_but_never_narrower_than_all_draws():
    random = np.random.default_rng(0)
    draws = (random.random((5, 60)) < 0.8).astype(float)
    mean, one = intervals.wilson(draws.mean(0), draws=5), intervals.wilson(draws[0])
    every = intervals.wilson(draws.reshape(-1))
    assert every.high - every.low <= mean.high - mean.low + 1e-9
    assert mean.high - mean.low < one.high - one.low


@pytest.mark.parametrize("discordant", [0, 1, 2, 3, 4])
def test_a_handful_of_discordant_items_shows_no_difference(discordant):
    baseline = np.r_[np.zeros(discordant), np.ones(40 - discordant)]
    assert intervals.paired("c", ("x", np.ones(40)), ("b", baseline)).shown == 0
    assert intervals.saturated(baseline)


def test_many_discordant_items_show_one():
    baseline = np.r_[np.zeros(12), np.ones(28)]
    found = intervals.paired("c", ("x", np.ones(40)), ("b", baseline))
    assert found.shown == 1
    assert found.difference == pytest.approx(0.3)
    assert found.p < 0.01
    assert not intervals.saturated(baseline)


def test_the_paired_interval_covers_the_true_difference():
    """Coverage over 2,000 simulated data sets of 40 items, near the upper end."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        both = random.random((2, 40))
        a, b = (both[0] < 0.97).astype(float), (both[1] < 0.9).astype(float)
        found = intervals.paired("c", ("x", a), ("b", b))
        covered += found.low <= 0.07 <= found.high
    assert 0.93 <= covered / 2000 <= 0.99


def test_saturated_baselines_are_said():
    verdict = _table(better=0.05, worse=0.05, pixels=0.05).verdict
    assert "the baselines are saturated (100.0 %): these data cannot tell encoders apart" in verdict
    assert "saturated" not in _table().verdict


def test_intervals_hold_their_value_and_shrink_with_items():
    for name in protocol.NAMES:
        score = _table(name=name).scores["centred pixels"]["knn@1"]
        assert score.low <= score.value <= score.high
        wide = math.sqrt(score.value * (1 - score.value) / 200) * 2 * 1.96
        assert score.high - score.low == pytest.approx(wide, rel=0.25)


def test_with_one_split_every_item_is_judged_by_the_others():
    items = _made(60)
    table = protocol.score(
        {"given": (items, None)}, headline="given", baselines=(), few_row="given", name="eval-v1"
    )
    right = 0
    for i in range(60):
        rest = items.take(np.array([j for j in range(60) if j != i]))
        right += knn_labels(rest, items.vectors[i : i + 1], k=5)[5][0] == items.labels[i]
    assert table.scores["given"]["knn@5"].value == pytest.approx(right / 60)
    assert "all of them do" in table.scores["given"]["knn@200"].note
    assert table.counts["test"] == 60
    assert set(table.split) == {"items"}
    assert 0.3 < table.scores["given"]["linear"].value <= 1


def test_classes_of_the_test_part_alone_and_duplicates_across_splits_are_counted():
    train, extra = _made(100), _made(20, seed=3)
    vectors = np.concatenate([extra.vectors, train.vectors[:4]])
    test = Embeddings(vectors, [str(i) for i in range(24)], np.r_[np.full(20, 7), train.labels[:4]])
    names = [f"kind {i}" for i in range(8)]
    table = protocol.score({"x": (train, test)}, headline="x", baselines=(), classes=names)
    counts = table.counts
    without = sorted(set(train.labels.tolist()) - set(train.labels[:4].tolist()))
    assert table.classes["classes_without_training_items"] == ["kind 7"]
    assert table.classes["classes_without_test_items"] == [f"kind {i}" for i in without]
    assert table.to_dict()["classes_without_test_items"]
    assert counts["test_classes_never_trained"] == 1
    assert counts["test_items_of_them"] == 20
    assert counts["duplicates_across_splits"] == 4


def test_a_class_with_one_example_leaves_out_the_columns_it_cannot_fill():
    labels = TRAIN.labels.copy()
    labels[0] = 9
    lonely = Embeddings(TRAIN.vectors, TRAIN.ids, labels)
    columns = protocol.score({"x": (lonely, TEST)}, headline="x", baselines=(), full=True).scores[
        "x"
    ]
    assert "1 label per class" in columns
    assert "4 labels per class" not in columns
    assert "10% of the labels" in columns
    assert "above the smallest class (1 item)" in columns["knn@5"].note


@pytest.mark.parametrize(("name", "wanted"), [("eval-v1", FROZEN_V1), ("eval-v2", FROZEN_V2)])
def test_the_protocols_are_frozen(name, wanted):
    """Scores of fixed vectors: a change of any number here is a new version."""
    values = {c: round(s.value, 4) for c, s in _table(name=name).scores["centred pixels"].items()}
    assert values == wanted


def test_the_intervals_of_v1_are_frozen():
    score = _table(name="eval-v1").scores["centred pixels"]["knn@200"]
    assert (round(score.low, 4), round(score.high, 4)) == FROZEN_INTERVAL
    assert _table(name="eval-v1").to_dict()["settings"]["resamples"] == 1000
    assert "deciding" not in _table(name="eval-v1").to_dict()


def test_a_k_above_the_smallest_class_is_marked():
    notes = _table().scores["centred pixels"]
    assert "above the smallest class" in notes["knn@200"].note
    assert notes["knn@5"].note == ""


# bad input ----------------------------------------------------------------------------------------


def test_bad_vectors_and_labels_are_named():
    with pytest.raises(DataError, match="the vector of b holds a value that is not finite"):
        Embeddings(np.array([[1.0], [np.nan]]), ["a", "b"])
    with pytest.raises(DataError, match="labels must be integers"):
        Embeddings(np.eye(2), ["a", "b"], [0.5, 1])
    with pytest.raises(DataError, match="2 labels are needed"):
        Embeddings(np.eye(2), ["a", "b"], [0])
    with pytest.raises(DataError, match="3 ids"):
        Embeddings(np.eye(2), ["a", "b", "c"])
    with pytest.raises(DataError, match="none of these items has a label"):
        knn(TRAIN, Embeddings(np.eye(2), ["a", "b"]))
    with pytest.raises(ConfigError, match="widths differ: 16 and 2"):
        knn(TRAIN, Embeddings(np.eye(2), ["a", "b"], [0, 1]))
    with pytest.raises(ConfigError, match="k must be 1 or more"):
        knn(TRAIN, TEST, k=0)
    with pytest.raises(ConfigError, match="the smallest class has"):
        few_label(TRAIN, TEST, per_class=1000)


@pytest.mark.parametrize("name", ["vectors.npz", "folder"])
def test_embeddings_survive_a_file(tmp_path, name):
    made = Embeddings(TRAIN.vectors, TRAIN.ids, TRAIN.labels, {"data": "made"})
    made.save(tmp_path / name)
    read = Embeddings.load(tmp_path / name)
    assert np.array_equal(read.vectors, made.vectors)
    assert read.ids == made.ids
    assert np.array_equal(read.labels, made.labels)
    assert read.provenance == {"data": "made"}
    assert isinstance(read.vectors, np.memmap) == (name == "folder")


def test_a_file_that_is_not_embeddings_is_an_error(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="does not hold embeddings"):
        Embeddings.load(tmp_path / "x.npz")
    with pytest.raises(DataError, match="does not hold embeddings"):
        Embeddings.load(tmp_path / "nowhere")


# the index ----------------------------------------------------------------------------------------


def test_search_is_by_cosine_best_first():
    similarity, row = Index(TRAIN).search(TEST.vectors, 7)
    wanted = _unit(TEST.vectors) @ _unit(TRAIN.vectors).T
    assert similarity.dtype == np.float32
    assert row.dtype == np.int64
    assert np.array_equal(row, np.argsort(-wanted, 1)[:, :7])
    assert np.allclose(similarity, np.sort(wanted, 1)[:, ::-1][:, :7], atol=1e-6)


def test_a_search_that_cannot_be_is_an_error():
    with pytest.raises(ConfigError, match=r"k must lie in 1..300"):
        Index(TRAIN).search(TEST.vectors, 301)
    with pytest.raises(ConfigError, match=r"vectors \(Q, 16\)"):
        Index(TRAIN).search(np.ones((2, 3)), 1)
