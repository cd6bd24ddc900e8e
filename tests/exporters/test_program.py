"""Exported sound, series, sentence and patch encoders agree where tellapart is not importable."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tellapart as ta
from tellapart.data import TextSource, modality_of
from tellapart.encoders import prepared
from tellapart.errors import ConfigError, MissingExtraError, RunError, TellapartError
from tellapart.exporters import export, program
from tellapart.runtime.console import Console
from tellapart.training.run import Run
from tellapart.views import evaluation_view

QUIET = Console(quiet=True)
SHARED = {
    "threads": 1,
    "device": "cpu",
    "precision": "float32",
    "steps": 2,
    "batch_size": 8,
    "console": QUIET,
}
WITHOUT_US = "import sys, json; sys.modules['tellapart'] = None; sys.path.insert(0, sys.argv[1])\n"
RATE = 8000
WORDS = [
    "the",
    "cat",
    "sees",
    "a",
    "bird",
    "dog",
    "house",
    "under",
    "red",
    "blue",
    "runs",
    "sleeps",
    "and",
    "it",
]


def _sounds(folder, random):
    import soundfile

    folder.mkdir()
    for i in range(12):
        wave = 0.3 * np.sin(np.arange(RATE) * (0.05 + 0.02 * i)) + 0.05 * random.standard_normal(
            RATE
        )
        soundfile.write(folder / f"{i}.wav", wave[: 3000 + 300 * i], RATE)
    return folder, folder / "3.wav"


def _tables(folder, random):
    folder.mkdir()
    for i in range(12):
        np.save(
            folder / f"{i}.npy",
            random.standard_normal((300 + 10 * i, 3)).cumsum(0).astype(np.float32),
        )
    return folder, folder / "3.npy"


def _sentences(folder, random):
    folder.mkdir()
    lines = [" ".join(random.choice(WORDS, 4 + i % 6)) for i in range(40)]
    (folder / "s.txt").write_text("\n".join(dict.fromkeys(lines)))
    return folder / "s.txt", None


def _images(folder, random):
    folder.mkdir()
    for i in range(12):
        h, w = 40 + i, 70 - 2 * i
        Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)).save(folder / f"{i}.png")
    return folder, folder / "3.png"


KINDS = {
    "sounds": (_sounds, "cpc", {"norm": "batch", "window": 2048}),
    "series": (_tables, "cpc", {"window": 128, "context": "lstm"}),
    "sentences": (_sentences, "simcse", {}),
    "bag of words": (_sentences, "simcse", {"encoder": "bag-of-tokens"}),
    "patches": (_images, "cpc", {"encoder": "patches", "image_size": 32}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs by kind, each made once: (run, a file of its source)."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("kind")
            write, method, options = KINDS[kind]
            data, file = write(folder / "data", np.random.default_rng(0))
            ta.train(method, data=str(data), out=folder / "run", **SHARED, **options)
            made[kind] = folder / "run", file
        return made[kind]

    return of


def elsewhere(folder, code, *arguments):
    """The output of a fresh interpreter that cannot import tellapart."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US + code, str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def example(folder, item):
    """The features that example.py prints."""
    code = (
        "import runpy; at, sys.argv = sys.argv[1], sys.argv[1:]; runpy.run_path(at + '/example.py')"
    )
    printed = elsewhere(folder, code, item)
    return json.loads(printed[printed.index("])") + 2 :])


def wanted(run, file):
    """The features of one file (of sentences: the fourth one), and the argument of example.py."""
    loaded = ta.load(run)
    source = prepared(loaded.encoder, loaded.source(console=QUIET))
    row = 3 if file is None else source.ids.index(file.name)
    with torch.inference_mode():
        features = loaded.encoder.features(
            evaluation_view(source, source.read(torch.tensor([row])))
        )[0].numpy()
    return features, source.text(row) if isinstance(source, TextSource) else file


@pytest.mark.parametrize("kind", KINDS)
def test_features_without_us_are_those_of_the_run(kind, trained, tmp_path):
    import onnxruntime

    run, file = trained(kind)
    onnx = kind != "sounds"  # theirs is written below, with BatchNorm folded
    found = export.export(run, out=tmp_path / "out", onnx=onnx, console=QUIET)
    features, item = wanted(run, file)
    assert len((tmp_path / "out" / "example.py").read_text().splitlines()) <= 10
    np.testing.assert_allclose(example(tmp_path / "out", item), features, atol=1e-5, rtol=1e-5)
    script = str(tmp_path / "out" / "example.py")
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (alone.returncode, alone.stderr.split()[:2]) == (1, ["python", "example.py"])
    assert found["features"] == len(features)
    assert found["checked"]["torch"] <= 1e-5
    assert not [
        name
        for name in load_file(tmp_path / "out" / "model.safetensors")
        if name.startswith("head")
    ]

    if not onnx:
        return
    assert found["checked"]["onnxruntime"] <= 1e-4
    session = onnxruntime.InferenceSession(
        str(tmp_path / "out" / "model.onnx")
    )  # of any batch and length
    loaded = ta.load(run)
    description, _ = loaded.run.encoder_files()
    data = loaded.run.manifest["data"]
    made = modality_of(data["kind"]).program(
        loaded.encoder, loaded.encoder, description, rate=data.get("rate"), fold=False
    )
    inputs = program.example_inputs(made, description, 5, 7)
    given = {name: x.numpy() for name, x in zip(made.inputs, inputs, strict=True)}
    wide = export._features(loaded.encoder, inputs, made)
    np.testing.assert_allclose(session.run(None, given)[0], wide, atol=1e-4)


def test_a_transformers_encoder_is_a_folder_of_its_library(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tellapart.encoders import text

    data, _ = _sentences(tmp_path / "data", np.random.default_rng(0))
    words = text.train_tokenizer(data.read_text().splitlines(), 300)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "bert")
    ta.train(
        "simcse",
        data=str(data),
        out=tmp_path / "run",
        encoder=str(tmp_path / "bert"),
        pooler="first-last",
        **SHARED,
    )
    export.export(tmp_path / "run", out=tmp_path / "out", bf16=True, console=QUIET)
    features, sentence = wanted(tmp_path / "run", None)
    found = example(tmp_path / "out", sentence)
    cosine = np.dot(found, features) / np.linalg.norm(found) / np.linalg.norm(features)
    assert cosine > 0.999  # rounded weights
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert theirs.config.hidden_size == 32


def test_folding_and_rounding_say_what_they_cost(trained, tmp_path, capsys):
    run, file = trained("sounds")
    found = export.export(run, out=tmp_path / "a", onnx=True, fold_batchnorm=True)
    assert found["lost"] == {
        "share of the 10 nearest kept": 1.0,
        "mean cosine": pytest.approx(1, abs=1e-5),
    }
    assert "share of the 10 nearest kept: 1.0" in capsys.readouterr().err
    assert found["checked"].keys() == {"torch", "onnxruntime"}
    features, _ = wanted(run, file)
    np.testing.assert_allclose(example(tmp_path / "a", file), features, atol=1e-4)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["folded"]
    found = export.export(run, out=tmp_path / "b", bf16=True, console=QUIET)
    assert found["lost"]["mean cosine"] > 0.99
    assert "mean cosine" in (tmp_path / "b" / "README.md").read_text()
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in "ab"]
    assert sizes[1] < 0.6 * sizes[0]


def test_labels_make_it_points_of_knn(trained, tmp_path):
    _, method, options = KINDS["series"]
    random = np.random.default_rng(0)
    for kind in ("train/up", "train/down", "test/up", "test/down"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(6):
            slope = np.linspace(0, 3, 300)[:, None] * (1 if "up" in kind else -1)
            np.save(
                tmp_path / "data" / kind / f"{i}.npy",
                (slope + random.standard_normal((300, 2))).astype("f4"),
            )
    ta.train(method, data=str(tmp_path / "data"), out=tmp_path / "run", **SHARED, **options)
    found = export.export(tmp_path / "run", out=tmp_path / "out", bf16=True, console=QUIET)
    assert found["lost"].keys() == {"knn@20, points lost", "knn@200, points lost"}


def test_the_card_says_where_it_comes_from(trained, tmp_path):
    run, _ = trained("series")
    export.export(run, out=tmp_path / "out", console=QUIET)
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "cpc",
        "fingerprint",
        "tellapart eval",
        "unknown",
        "starting weights",
        "The weights are yours",
        "TABLE",
    ):
        assert said in card
    about = json.loads((tmp_path / "out" / "preprocessor.json").read_text())
    assert len(about["mean"]) == len(about["std"]) == 3


def test_a_network_that_computes_otherwise_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(export.ALLOWED, "torch", -1.0)
    with pytest.raises(TellapartError, match="nothing was written"):
        export.export(trained("series")[0], out=tmp_path / "out", console=QUIET)
    assert not list(tmp_path.iterdir())


def test_bad_input(trained, tmp_path, monkeypatch):
    run, _ = trained("series")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")

    def exported(run, out="out", **options):
        export.export(run, out=tmp_path / out, console=QUIET, **options)

    with pytest.raises(RunError, match="not empty"):
        exported(run, "used")
    with pytest.raises(RunError, match="is a file"):
        exported(run, "used/file")
    with pytest.raises(RunError, match="cannot write"):
        exported(run, "used/file/below")
    with pytest.raises(RunError, match="not a run"):
        exported(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        exported(run, checkpoint=str(tmp_path / "no.pt"))
    with pytest.raises(ConfigError, match="no BatchNorm"):
        exported(run, fold_batchnorm=True)
    Run.create(tmp_path / "empty", {"method": "cpc", "config": {}, "data": {"name": "x"}})
    with pytest.raises(RunError, match="no encoder yet"):
        exported(tmp_path / "empty")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "run.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        exported(tmp_path / "later")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[export\]"):
        exported(run, onnx=True)
    assert not (tmp_path / "out").exists()
