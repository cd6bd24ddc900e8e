"""`eval`: what it judges, beside what, on which items, and what it says where it cannot tell."""

from __future__ import annotations

import argparse
import json
import re
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from tellapart import api, encoders
from tellapart.data import open_source
from tellapart.embeddings import Embeddings, embed
from tellapart.encoders import pretrained
from tellapart.errors import ConfigError, DataError, RunError, TellapartError
from tellapart.evaluation import intervals, label_free, protocol, rows, stored
from tellapart.evaluation.stage_probe import stage_vectors
from tellapart.evaluation.transform_probe import what_is_discarded
from tellapart.reports.tables import print_table
from tellapart.runtime.console import Console
from tellapart.training.loading import open_subject

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "r"
    api.train("simclr", data="digits", out=folder, epochs=2, threads=1, save_every=4, console=QUIET)
    return folder


def _labels(path, rows):
    path.write_text("id,label\n" + "".join(f"{i},{label}\n" for i, label in rows))
    return path


def test_a_run_is_judged_beside_pixels_and_random_weights(run):
    result = api.evaluate(run, console=QUIET)
    assert set(result["scores"]) == {
        "centred pixels",
        "random init",
        "trained features",
        "trained embedding",
    }
    assert result["geometry"].keys() == result["scores"].keys()
    assert {"LiDAR", "view retrieval", "hubness", "alpha-ReQ"} <= result["geometry"][
        "centred pixels"
    ].keys()
    assert json.loads((run / "eval.json").read_text())["verdict"] == result["verdict"]


@pytest.mark.parametrize("name", ["eval-v1", "eval-v2"])
def test_both_protocols_are_recorded_with_their_verdict(run, tmp_path, name):
    out = tmp_path / "e.json"
    result = api.evaluate(run, protocol=name, out=out, console=QUIET)
    assert result["protocol"] == name
    assert json.loads(out.read_text())["verdict"] == result["verdict"]
    assert result["verdict"].startswith("k-NN accuracy (k = ")
    assert ("deciding" in result) == (name == "eval-v2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "interrupted", "step": 3}, r"was interrupted at step 3 of 22"),
        ({"status": "failed", "step": 5}, r"failed at step 5 of 22"),
        (
            {"status": "running", "step": 7},
            r"has not finished: its last checkpoint is at step 7 of 22",
        ),
    ],
)
def test_the_state_of_an_unfinished_run_stands_in_every_verdict(run, tmp_path, change, said):
    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(manifest | {"steps": 22} | change))
    for options in ({}, {"protocol": "eval-v1"}, {"quick": True}):
        verdict = api.evaluate(copy, console=QUIET, **options)["verdict"]
        assert re.match(f"The training {said}. (On a sample|k-NN)", verdict)
    assert "The training" not in api.evaluate(run, console=QUIET, quick=True)["verdict"]


def test_quick_scores_a_stated_sample(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "QUICK", 100)
    result = api.evaluate(run, quick=True, out=tmp_path / "e.json", console=QUIET)
    assert result["sample"] == {"train": 100, "test": 100, "of": 1797}
    assert result["counts"]["train"] == result["counts"]["test"] == 100
    assert (
        "On a sample of 100 train items and 100 test items of 1,797 (--quick)" in result["verdict"]
    )


def test_a_second_eval_reads_the_chunks_of_the_first(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TELLAPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "SLOW", -1.0)
    monkeypatch.setattr(stored, "CHUNK", 500)
    source, encoder = open_source("digits").split("train"), api.load(run).encoder
    whole = embed(encoder, source, output="embedding").vectors
    wanted = ("features", "embedding")
    first = stored.embed_in_chunks(encoder, source, wanted)
    kept = sorted((tmp_path / "cache" / "vectors").rglob("*.npz"))
    assert len(kept) == 3
    assert np.array_equal(first["embedding"].vectors, whole)
    kept[1].write_bytes(kept[1].read_bytes()[:-200])  # damaged: computed again
    calls = []
    real = stored.outputs
    monkeypatch.setattr(stored, "outputs", lambda *a, **o: calls.append(1) or real(*a, **o))
    done = []
    again = stored.embed_in_chunks(encoder, source, wanted, progress=done.append)
    assert len(calls) == 1
    assert done[-1] == len(source)
    assert np.array_equal(again["features"].vectors, first["features"].vectors)
    stored.embed_in_chunks(encoder, source, wanted)
    assert len(calls) == 1
    stored.embed_in_chunks(encoder, source.subset(np.arange(600)), wanted)
    with torch.no_grad():
        encoder.head[0].weight += 1e-3
    stored.embed_in_chunks(encoder, source, wanted)
    assert len(calls) == 1 + 2 + 3


def test_the_untrained_baseline_of_large_images_is_seen_small(photos, tmp_path, monkeypatch):
    torch.save(_resnet(), tmp_path / "w.pth")
    sides = {}
    real = rows.embed_in_chunks

    def watched(encoder, source, wanted, **options):
        sides[id(encoder)] = source.image_size
        return real(encoder, source, wanted, **options)

    monkeypatch.setattr(rows, "embed_in_chunks", watched)
    for name, wanted in (("eval-v2", [64, 96]), ("eval-v1", [96, 96])):
        sides.clear()
        api.evaluate(
            tmp_path / "w.pth",
            data=str(photos),
            image_size=96,
            protocol=name,
            out=tmp_path / "e.json",
            console=QUIET,
        )
        assert list(sides.values()) == wanted


def test_the_embeddings_of_both_outputs_are_those_of_the_modules(run):
    encoder = api.load(run).encoder
    source = open_source("digits").subset(np.arange(40))
    x = source.read(torch.arange(40)) / 255
    with torch.no_grad():
        for output, wanted in (("features", encoder.features(x)), ("embedding", encoder(x))):
            assert np.allclose(
                embed(encoder, source, output=output).vectors, wanted.numpy(), atol=1e-5
            )


def test_a_few_labels_in_a_file_are_judged_by_leaving_out(run, tmp_path):
    digits = open_source("digits")
    names = _labels(
        tmp_path / "few.csv",
        [(digits.ids[i], f"kind {digits.labels[i]}") for i in range(0, 300, 3)],
    )
    result = api.evaluate(run, labels=names, console=QUIET)
    assert result["counts"]["test"] == result["counts"]["train"] == 100
    assert result["scores"]["centred pixels"]["knn@1"]["value"] > 0.8
    assert set(result["split"]) == {"items"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label\nnobody,1\n", "1 id not found in digits, the first: 'nobody'"),
        ("train/00000,1\ntrain/00000,2\n", "labels 'train/00000' twice"),
        ("train/00000\n", "lines of id,label are needed"),
        ("train/00000,1\ntrain/00001,1\n", "two labels or more"),
        ("", "holds no labels"),
    ],
)
def test_bad_files_of_labels_are_named(run, tmp_path, text, said):
    (tmp_path / "few.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        api.evaluate(run, labels=tmp_path / "few.csv", console=QUIET)


def test_as_many_labels_as_a_column_wants_leave_nothing_to_judge_it_on(run, tmp_path):
    digits = open_source("digits")
    rows = [i for c in range(2) for i in np.flatnonzero(digits.labels == c)[:10]]
    names = _labels(tmp_path / "few.csv", [(digits.ids[i], digits.labels[i]) for i in rows])
    columns = api.evaluate(run, labels=names, console=QUIET)["scores"]["centred pixels"]
    assert "4 labels per class" in columns
    assert "10 labels per class" not in columns
    assert "knn@chosen" not in columns
    names = _labels(
        tmp_path / "few.csv", [(digits.ids[i], min(k, 1)) for k, i in enumerate(range(6))]
    )
    assert (
        0
        <= api.evaluate(run, labels=names, console=QUIET)["scores"]["random init"]["linear"][
            "value"
        ]
        <= 1
    )


def test_without_labels_the_verdict_tells_how_many_to_label(run):
    found = {"pixels": np.r_[np.ones(30), np.zeros(70)], "trained": np.ones(100)}
    said = label_free.verdict(
        found, ("pixels",), "trained", "tellapart eval r --labels few.csv", intervals.analytic()
    )
    assert "View retrieval among 100 items" in said
    assert "100.0 %, significantly better than the best baseline, pixels (+70.0 points" in said
    assert "nothing can tell which row is better for your task. Label about 154 items" in said
    assert said.endswith("tellapart eval r --labels few.csv")


# others' encoders ---------------------------------------------------------------------------------


def _resnet():
    torch.manual_seed(1)
    return {
        k: v
        for k, v in torchvision.models.resnet18().state_dict().items()
        if not k.startswith("fc.")
    }


def _numbered(weights):
    names = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {
        f"backbone.{names[k.split('.')[0]]}.{k.partition('.')[2]}": v for k, v in weights.items()
    }


WRITERS = {
    "plain": lambda w: w,
    "moco": lambda w: {
        "epoch": 1, "arch": "resnet18",
        "state_dict": {f"module.encoder_q.{k}": v for k, v in w.items()}
        | {"module.queue": torch.zeros(2, 2)},
    },
    "dino": lambda w: {
        "student": {}, "teacher": {f"backbone.{k}": v for k, v in w.items()},
        "args": argparse.Namespace(arch="x"),
    },
    "lightly": lambda w: {
        "state_dict": _numbered(w) | {"projection_head.layers.0.weight": torch.zeros(2, 2)}
    },
    "solo-learn": lambda w: {"state_dict": {f"backbone.{k}": v for k, v in w.items()}},
    "vissl": lambda w: {
        "classy_state_dict": {
            "base_model": {"model": {"trunk": {f"_feature_blocks.{k}": v for k, v in w.items()}}}
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_checkpoints_of_others_are_recognised(tmp_path, writer):
    weights = _resnet()
    torch.save(WRITERS[writer](weights), tmp_path / "w.pth")
    subject = open_subject(tmp_path / "w.pth")
    assert subject.encoder.mean.flatten().tolist() == pytest.approx(pretrained.IMAGENET_MEAN)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = torchvision.models.resnet18()
    network.load_state_dict(weights, strict=False)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.allclose(
            subject.encoder.features(x), network.eval()(subject.encoder.normalised(x)), atol=1e-5
        )
        assert not torch.allclose(subject.fresh.features(x), subject.encoder.features(x))


def test_a_deeper_network_is_not_taken_for_a_shallow_one(tmp_path):
    deep = torchvision.models.resnet34()
    torch.save(
        {k: v for k, v in deep.state_dict().items() if not k.startswith("fc.")}, tmp_path / "w.pth"
    )
    assert sum("conv1" in n for n in open_subject(tmp_path / "w.pth").encoder.state_dict()) == 17
    with pytest.raises(ConfigError, match="does not fit the encoder"):
        open_subject(tmp_path / "w.pth", encoder="torchvision/resnet18")


def test_weights_with_a_small_stem_are_recognised_by_it(tmp_path):
    body = encoders.backbone("torchvision/resnet18", channels=3, size=32, small_stem=True)
    save_file(
        {k.removeprefix("model."): v for k, v in body.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    assert open_subject(tmp_path / "w.safetensors").encoder.backbone.small_stem


def test_weights_are_judged_on_images_of_other_channels_too(tmp_path):
    torch.save(_resnet(), tmp_path / "w.pth")
    result = api.evaluate(
        tmp_path / "w.pth",
        data="digits",
        labels=_some_digits(tmp_path),
        out=tmp_path / "e.json",
        console=QUIET,
    )
    assert set(result["scores"]) == {"centred pixels", "random init", "its features"}
    assert (tmp_path / "e.json").exists()


def _some_digits(folder):
    digits = open_source("digits")
    return _labels(folder / "few.csv", [(digits.ids[i], digits.labels[i]) for i in range(40)])


def test_a_checkpoint_of_another_architecture_names_the_keys(tmp_path, run):
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    with pytest.raises(
        ConfigError, match=r"fits none of the networks tried .*it holds 1 tensors, layer.weight"
    ):
        open_subject(tmp_path / "w.pth")
    with pytest.raises(
        ConfigError,
        match=r"100 of .* tensors are missing, have another shape, or are too many: model.bn1.b",
    ):
        open_subject(tmp_path / "w.pth", encoder="torchvision/resnet18")
    torch.save({k: v for k, v in _resnet().items() if "layer3" not in k}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"too many: .*model.layer3.0.bn1.bias"):
        open_subject(tmp_path / "w.pth", encoder="torchvision/resnet18")
    with pytest.raises(RunError, match=r"do not fit its config.json"):
        open_subject(run, checkpoint=str(tmp_path / "w.pth"))


# vectors ------------------------------------------------------------------------------------------


def test_vectors_are_judged_with_and_without_a_test_part(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    vectors = random.normal(size=(90, 8)) + 2 * np.eye(8)[labels]
    np.savez(tmp_path / "a.npz", vectors=vectors[:60], labels=labels[:60])
    Embeddings(vectors[60:], [str(i) for i in range(30)], labels[60:]).save(tmp_path / "b.npz")
    one = api.evaluate(tmp_path / "a.npz", out=tmp_path / "e.json", console=QUIET)
    two = api.evaluate(
        tmp_path / "a.npz", test=tmp_path / "b.npz", out=tmp_path / "e.json", console=QUIET
    )
    assert (one["counts"]["test"], two["counts"]["test"]) == (60, 30)
    assert two["scores"]["given vectors"]["knn@5"]["value"] > 0.6
    assert two["comparisons"] == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vectors": np.array([[1.0, np.nan]] * 4)}, "not finite"),
        (
            {"vectors": np.eye(4), "labels": np.array(["a", "b", "a", "b"])},
            "labels must be integers",
        ),
        ({"vectors": np.eye(4), "labels": np.array([0.5, 1, 2, 3])}, "labels must be integers"),
        ({"vectors": np.zeros((0, 4)), "labels": np.zeros(0, int)}, "no items"),
        ({"points": np.eye(3)}, "does not hold embeddings"),
        ({"vectors": np.eye(4), "labels": np.zeros(4, int)}, "the same label"),
    ],
)
def test_bad_vectors_are_named(tmp_path, fields, said):
    np.savez(tmp_path / "x.npz", **fields)
    with pytest.raises(TellapartError, match=said):
        api.evaluate(tmp_path / "x.npz", out=tmp_path / "e.json", console=QUIET)


# more ---------------------------------------------------------------------------------------------


def test_several_sources_make_a_table_of_transfer(run, tmp_path, photos):
    for name in ("gray", "dark"):
        for file in sorted(photos.rglob("*.png")):
            out = tmp_path / name / file.parent.name / file.name
            out.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).convert("L").point(
                lambda v, n=name: v // 2 if n == "dark" else v
            ).save(out)
    sources = [str(tmp_path / "gray"), str(tmp_path / "dark")]
    result = api.evaluate(run, data=sources, out=tmp_path / "t.json", console=QUIET)
    assert list(result["transfer"]) == sources
    assert "of 2 sources" in result["verdict"]
    with pytest.raises(DataError, match="has 3 channel"):
        api.evaluate(run, data=str(photos), console=QUIET)


def test_what_cannot_be_judged_is_an_error(run, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'eval-v2'"):
        api.evaluate(run, protocol="eval-v22", console=QUIET)
    torch.save(_resnet(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="has no training data of its own; pass --data"):
        api.evaluate(tmp_path / "w.pth", console=QUIET)
    with pytest.raises(RunError, match=r"holds: .*last.pt"):
        api.evaluate(run, checkpoint="step-77.pt", console=QUIET)
    with pytest.raises(ConfigError, match="is not a run folder"):
        api.evaluate("nowhere", console=QUIET)


def test_stages_are_pooled_to_at_most_the_dimensions_asked_for(run):
    encoder = api.load(run).encoder
    source = open_source("digits").subset(np.arange(10))
    found = stage_vectors(encoder, source, dimensions=100)
    assert [e.vectors.shape[1] for e in found] == [16 * 4, 16 * 4, 32, 64]
    with torch.no_grad():
        last = encoder.maps(source.read(torch.arange(10)) / 255)[-1].mean((2, 3))
    assert np.allclose(found[-1].vectors, last, atol=1e-5)


def test_rotation_is_read_off_features_and_chance_off_noise(run, digits):
    found = what_is_discarded(api.load(run).encoder, digits.split("train"), digits.split("test"))
    assert set(found["chance"]) == {"rotation", "original or noisy", "original or edges"}
    assert found["features (h)"]["rotation"] > 0.5
    assert found["features (h)"]["original or edges"] > 0.9


def test_full_adds_every_table(run, monkeypatch, capsys):
    from tellapart.evaluation import full
    from tellapart.evaluation.fine_tune import Schedule
    from tellapart.evaluation.label_budget import Effort

    quick = Schedule(steps=3, batch_size=8)
    monkeypatch.setattr(full, "SHARES", (0.01, 0.1))
    monkeypatch.setattr(full, "PER_CLASS", (4,))
    monkeypatch.setattr(protocol, "SHARES", (0.01, 0.04))
    monkeypatch.setattr(full, "Effort", lambda distil: Effort(1, quick, quick, quick, distil))
    before = {k: v.clone() for k, v in api.load(run).encoder.state_dict().items()}
    result = api.evaluate(run, full=True, stage_dims=64, stage_rows=150, console=QUIET)
    budgets = result["full"]["accuracy by number of labels, %"]
    assert set(budgets["fine-tuned"]) == {"1%", "10%", "4 a class"}
    assert set(budgets["distilled into itself"]) == {"1%", "10%"}
    assert "4% of the labels" in result["scores"]["trained features"]
    assert len(result["full"]) == 5
    print_table(result, Console())
    assert "fine-tuned" in capsys.readouterr().err
    after = api.load(run).encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
