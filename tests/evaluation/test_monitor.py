"""The training monitor: no side effects, checkpoint selection, and no use of test labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tellapart import api
from tellapart.data import open_source
from tellapart.embeddings import Embeddings
from tellapart.errors import ConfigError
from tellapart.evaluation.monitor import Watch, few_label_knn
from tellapart.runtime.console import Console
from tellapart.training import presets
from tellapart.training.build import build_encoder
from tellapart.training.diagnosis import judge
from tellapart.training.run import Run

QUIET = Console(quiet=True)
SHORT = {
    "data": "digits",
    "steps": 12,
    "batch_size": 128,
    "threads": 1,
    "save_every": 3,
    "console": QUIET,
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    out = tmp_path_factory.mktemp("w") / "r"
    api.train("simclr", out=out, eval_every=6, validation=200, **SHORT)
    return out


def _weights(run):
    return torch.load(run / "checkpoints/last.pt", weights_only=True)


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_watching_leaves_the_weights_as_they_are(watched, tmp_path, monkeypatch):
    monkeypatch.setattr("tellapart.evaluation.monitor.Watch", lambda *_, **__: None)
    api.train("simclr", out=tmp_path / "r", validation=200, **SHORT)
    assert _equal(_weights(watched)["encoder"], _weights(tmp_path / "r")["encoder"])


def test_checkpoints_are_measured_and_looks_are_logged(watched):
    rows = {row["step"]: row for row in Run.open(watched).metrics()}
    assert [s for s in rows if "features_LiDAR" in rows[s]] == [3, 6, 9, 12]
    assert [s for s in rows if "held_out_knn" in rows[s]] == [6, 12]
    assert 0.3 < rows[12]["held_out_knn"] <= 1


def test_the_best_checkpoint_is_kept_and_can_be_loaded(watched):
    best = Run.open(watched).manifest["best"]
    rows = {
        row["step"]: row for row in Run.open(watched).metrics() if "features_view_retrieval" in row
    }
    assert best["by"] == "view retrieval"
    assert best["value"] == max(row["features_view_retrieval"] for row in rows.values())
    kept = torch.load(watched / "checkpoints/best-unlabelled.pt", weights_only=True)
    assert kept["step"] == best["step"]
    assert _equal(
        api.load(watched, checkpoint="best-unlabelled").encoder.state_dict(), kept["encoder"]
    )


def test_shuffled_test_labels_leave_every_weight_and_the_choice_as_they_are(
    watched, tmp_path, monkeypatch
):
    digits = open_source("digits")
    moved = digits.all_labels.copy()
    test = digits.parts["test"]
    moved[test] = np.random.default_rng(1).permutation(moved[test])
    assert not np.array_equal(moved, digits.all_labels)
    other = replace(digits, all_labels=moved)
    monkeypatch.setattr("tellapart.training.resolve.open_source", lambda *_, **__: other)
    api.train("simclr", out=tmp_path / "r", eval_every=6, validation=200, **SHORT)
    for name in ("last.pt", "best-unlabelled.pt"):
        ours, theirs = (
            torch.load(r / "checkpoints" / name, weights_only=True)
            for r in (watched, tmp_path / "r")
        )
        assert ours["step"] == theirs["step"]
        assert _equal(ours["encoder"], theirs["encoder"])


def test_a_few_labels_choose_where_they_are_given(tmp_path):
    digits = open_source("digits")
    rows = "".join(f"{digits.ids[i]},{digits.labels[i]}\n" for i in range(60))
    (tmp_path / "few.csv").write_text(rows)
    api.train("simclr", out=tmp_path / "r", labels=str(tmp_path / "few.csv"), **SHORT)
    best = Run.open(tmp_path / "r").manifest["best"]
    assert best["by"] == "few_label_knn"
    assert 0.3 < best["value"] <= 1


def test_auto_stops_once_no_checkpoint_is_better(tmp_path, monkeypatch):
    values = iter([1.0, 3.0, 2.0, 2.5, 2.0, 2.0, 2.0, 9.0])
    real = Watch.checkpoint
    monkeypatch.setattr(
        Watch, "checkpoint", lambda self, e: real(self, e)._replace(choice=next(values))
    )
    api.train("simclr", out=tmp_path / "r", stop="auto", **SHORT | {"steps": 40, "save_every": 1})
    manifest = json.loads((tmp_path / "r/run.json").read_text())
    assert (manifest["status"], manifest["step"], manifest["best"]["step"]) == ("finished", 7, 2)


def test_weights_that_are_not_numbers_are_never_chosen(digits):
    config = presets.named("simclr_digits")
    encoder = build_encoder(config, digits)
    with torch.no_grad():
        encoder.backbone.stem[0].weight.fill_(float("nan"))
    look = Watch(config, digits, batch=128, views_per_item=2).checkpoint(encoder)
    assert look.row == {}
    assert look.choice == float("-inf")


def test_a_look_that_would_cost_too_much_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(
        ConfigError, match=r"costs more than 5 % of the time; give --eval-every \d+"
    ):
        api.train("simclr", out=tmp_path / "r", eval_every=1, **SHORT | {"batch_size": 32})
    assert not (tmp_path / "r").exists()


def test_the_verdict_tells_what_the_looks_saw():
    rows = [
        {"step": s, "loss": 5 - s / 100, "std": 0.9, "effective_rank": 40.0}
        for s in range(0, 200, 20)
    ]
    for step, value in ((60, 0.3), (120, 0.6), (180, 0.5)):
        rows[step // 20]["held_out_knn"] = value
    assert (
        "k-NN accuracy (k = 20) on held-out items went from 30.0% to 50.0%, after 60.0% at step 120"
        in judge(rows).sentence
    )


def test_few_label_knn_is_leave_one_out(digits):
    part = digits.subset(np.arange(30))
    vectors = part.read(torch.arange(30)).flatten(1).float()
    items = Embeddings(vectors, part.ids, part.labels)
    near = torch.nn.functional.normalize(vectors, dim=1)
    similarity = (near @ near.T).fill_diagonal_(-1)
    right = 0
    for i in range(30):
        top = similarity[i].topk(5)
        votes = np.zeros(10)
        for s, j in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            votes[part.labels[j]] += np.exp(s / 0.07)
        right += votes.argmax() == part.labels[i]
    assert few_label_knn(items) == pytest.approx(right / 30)
