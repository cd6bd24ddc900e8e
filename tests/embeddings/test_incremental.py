"""Embed with any encoder: pooled, per patch, new files only; search by threshold and index."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import tellapart as ta
from tellapart import api, cli
from tellapart.embeddings import incremental
from tellapart.errors import ConfigError, DataError, MissingExtraError
from tellapart.training.run import Run


@pytest.fixture
def run(photos, tmp_path):
    ta.train("simclr", data=str(photos), out=tmp_path / "run", steps=2, batch_size=8, image_size=32)
    return tmp_path / "run"


@pytest.fixture
def counted(monkeypatch):
    """How many items each call really embedded."""
    seen = []

    def vectors(encoder, source, rows, wanted, console):
        seen.append(len(rows))
        return real(encoder, source, rows, wanted, console)

    real = incremental._vectors
    monkeypatch.setattr(incremental, "_vectors", vectors)
    return seen


@pytest.mark.parametrize("output", ["features", "embedding", "patches"])
@pytest.mark.parametrize("name", ["v.npz", "v"])
def test_a_second_call_embeds_only_new_contents(run, photos, tmp_path, counted, output, name):
    out = tmp_path / name
    first = ta.embed(run, data=str(photos), out=out, output=output)
    (photos / "red" / "0.png").rename(photos / "red" / "moved.png")
    (photos / "green" / "1.png").unlink()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (50, 50, 3), np.uint8)).save(
        photos / "blue" / "new.png"
    )
    second = ta.embed(run, data=str(photos), out=out, output=output)
    assert counted == [24, 1]
    again = ta.embed(run, data=str(photos), out=tmp_path / "fresh.npz", output=output)
    assert second.ids == again.ids
    np.testing.assert_allclose(second.vectors, again.vectors, atol=1e-5)
    assert len(first) == len(second)


def test_other_weights_embed_everything_again(run, photos, tmp_path, counted):
    ta.embed(run, out=tmp_path / "v.npz")
    weights = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["encoder"]
    other = {k: v + 0.01 if v.is_floating_point() else v for k, v in weights.items()}
    torch.save({"encoder": other}, tmp_path / "other.pt")
    ta.embed(run, out=tmp_path / "v.npz", checkpoint=str(tmp_path / "other.pt"))
    assert counted == [24, 24]


def test_patches_are_the_places_of_the_last_map(run, tmp_path):
    found = ta.embed(run, out=tmp_path / "p", output="patches")
    loaded = ta.load(run)
    source = loaded.source()
    from tellapart.views import evaluation_view

    with torch.inference_mode():
        last = loaded.encoder.maps(evaluation_view(source, source.read(torch.tensor([3]))))[-1][0]
    row = found.ids.index(f"{source.ids[3]}#1,2")
    np.testing.assert_allclose(found.vectors[row], last[:, 1, 2], atol=1e-5)
    assert len(found) == 24 * last.shape[1] * last.shape[2]


def test_a_known_network_without_training(photos, tmp_path, monkeypatch):
    """timm's weights are stood in for: no test downloads."""
    import timm

    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: real(*a, **(k | {"pretrained": False}))
    )
    found = ta.embed("timm/resnet18", data=str(photos), out=tmp_path / "v.npz", image_size=64)
    assert found.vectors.shape == (24, 512)
    with pytest.raises(ConfigError, match="features or patches"):
        ta.embed("timm/resnet18", data=str(photos), out=tmp_path / "v.npz", output="embedding")


def test_vectors_cannot_be_embedded(run, tmp_path):
    ta.embed(run, out=tmp_path / "v.npz")
    with pytest.raises(ConfigError, match="holds vectors, not an encoder"):
        ta.embed(tmp_path / "v.npz", out=tmp_path / "w.npz")


def test_search_with_a_threshold_and_an_index(run, photos, capsys):
    query = str(photos / "red" / "0.png")
    everything = ta.search(run, [query], k=24)[0]
    some = ta.search(run, [query], k=24, threshold=everything[5]["similarity"] - 1e-4)[0]
    assert some == everything[: len(some)]
    assert 6 <= len(some) < 24
    flat = ta.search(run, [query], k=5, index="flat")[0]
    assert [f["id"] for f in flat] == [e["id"] for e in everything[:5]]
    assert "recall 1.000" in capsys.readouterr().err
    ta.search(run, [query], k=5, index="flat")
    assert "recall" not in capsys.readouterr().err  # kept in the run
    with pytest.raises(ConfigError, match=r"-1\.\.1"):
        ta.search(run, [query], threshold=2)


def test_an_index_without_its_extra_is_an_error_on_the_command_line(run, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", str(run), "red/0.png", "--index", "hnsw", "--json"])
    assert stop.value.code == 2
    assert "tellapart[index]" in json.loads(capsys.readouterr().out)["error"]
    assert issubclass(MissingExtraError, ImportError)


def test_cut_off_vectors_of_a_run_are_made_again(run, photos):
    query = str(photos / "red" / "0.png")
    before = ta.search(run, [query])
    np.save(run / "embeddings" / "vectors.npy", np.zeros((24, 64), np.float32))
    assert ta.search(run, [query]) == before
    (run / "embeddings" / "items.npz").write_bytes(b"PK")
    assert ta.search(run, [query]) == before


def test_a_source_that_is_gone_is_named(run, photos, tmp_path):
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="photos"):
        ta.search(run, ["red/0.png"])
    assert Run.open(run).manifest["status"] == "finished"


def test_nothing_to_search_for(run):
    with pytest.raises(ConfigError, match="QUERY"):
        api.search(run, [])
