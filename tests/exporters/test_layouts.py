"""Exported folders open in timm and in sentence-transformers, with the features of the run."""

import json

import numpy as np
import pytest
import torch

import tellapart as ta
from tellapart import api
from tellapart.errors import ConfigError
from tellapart.views import evaluation_view

SHARED = {"steps": 1, "batch_size": 4, "precision": "float32", "threads": 1}


@pytest.mark.parametrize(
    ("encoder", "size", "bf16"),
    [("timm/resnet10t", 96, False), ("timm/vit_tiny_patch16_224", 64, False),
     ("timm/resnet10t", 96, True)],
)  # fmt: skip
def test_timm_opens_the_folder(encoder, size, bf16, photos, tmp_path):
    import timm

    run, out = tmp_path / "run", tmp_path / "exp"
    ta.train("simclr", data=photos, out=run, encoder=encoder, image_size=size, **SHARED)
    api.export(run, out=out, bf16=bf16)
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    about = timm.data.resolve_model_data_config(network)
    assert about["input_size"][1:] == (size, size)
    loaded = ta.load(run)
    view = evaluation_view(loaded.source(), loaded.source().read(torch.tensor([0, 9])))
    mean, std = (torch.tensor(about[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        wanted, found = loaded.encoder.features(view), network((view - mean) / std)
    tolerance = 2e-2 if bf16 else 1e-5
    np.testing.assert_allclose(found, wanted, atol=tolerance * float(wanted.abs().max().clamp(1)))


def test_a_network_that_timm_cannot_build_says_nothing_of_timm(photos, tmp_path):
    run = tmp_path / "run"
    ta.train("simclr", data=photos, out=run, encoder="timm/resnet18", image_size=32, **SHARED)
    api.export(run, out=tmp_path / "exp")
    assert "architecture" not in json.loads((tmp_path / "exp" / "config.json").read_text())


@pytest.mark.parametrize("pooler", ["mean", "cls"])
def test_sentence_transformers_opens_the_folder(pooler, lines, tmp_path):
    package = pytest.importorskip("sentence_transformers")
    folder = _bert(lines, tmp_path)
    ta.train("simcse", data=lines, out=tmp_path / "run", encoder=str(folder), pooler=pooler,
        max_length=16, **SHARED)  # fmt: skip
    api.export(tmp_path / "run", out=tmp_path / "exp")
    vectors = ta.embed(tmp_path / "run", out=tmp_path / "v.npz")
    texts = [line for line in lines.read_text().splitlines() if line]
    found = package.SentenceTransformer(str(tmp_path / "exp"), device="cpu").encode(texts)
    source = ta.load(tmp_path / "run").source()
    wanted = dict(zip((source.text(i) for i in range(len(source))), vectors.vectors, strict=True))
    compared = [(a, wanted[text]) for text, a in zip(texts, found, strict=True) if text in wanted]
    assert len(compared) > 10
    np.testing.assert_allclose(*map(np.array, zip(*compared, strict=True)), atol=1e-5)


def _bert(lines, tmp_path):
    """A small BERT with random weights and a tokenizer of the lines."""
    transformers = pytest.importorskip("transformers")
    from tellapart.encoders.text import train_tokenizer

    words = train_tokenizer(lines.read_text().splitlines(), 300)
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    ).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize(("encoder", "size"), [("small-resnet", 16), ("timm/resnet10t", 96)])
def test_an_export_opens_in_every_command_with_the_features_of_the_run(
    encoder, size, photos, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "exp"
    ta.train("simclr", data=photos, out=run, encoder=encoder, image_size=size, **SHARED)
    api.export(run, out=out)
    wanted = api.embed(run, data=photos, out=tmp_path / "a.npz", output="features")
    api.embed(out, data=photos, out=tmp_path / "b.npz", image_size=size)
    a, b = (ta.Embeddings.load(tmp_path / name).vectors for name in ("a.npz", "b.npz"))
    assert wanted is not None
    np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(a).max()))


@pytest.mark.parametrize(
    ("file", "content"),
    [("preprocessor.json", '{"mean": [0.5]}'), ("preprocessor.json", '{"mean": "x", "std": [1]}'),
     ("config.json", '{"folded": false, "encoder": 3}'), ("model.safetensors", "cut off")],
)  # fmt: skip
def test_a_damaged_export_is_one_error(file, content, photos, tmp_path):
    run, out = tmp_path / "run", tmp_path / "exp"
    ta.train("simclr", data=photos, out=run, image_size=16, **SHARED)
    api.export(run, out=out)
    (out / file).write_text(content)
    with pytest.raises(ConfigError):
        api.embed(out, data=photos, out=tmp_path / "b.npz")


def test_a_folded_export_names_the_remedy(photos, tmp_path):
    run, out = tmp_path / "run", tmp_path / "exp"
    ta.train("simclr", data=photos, out=run, image_size=16, **SHARED)
    api.export(run, out=out, fold_batchnorm=True)
    with pytest.raises(ConfigError, match="--fold-batchnorm"):
        api.embed(out, data=photos, out=tmp_path / "b.npz")
