"""Search over runs, other encoders and saved vectors: what stands beside a similarity."""

import json
import re
import wave

import numpy as np
import pytest
from PIL import Image

import tellapart as ta
from tellapart import api, cli
from tellapart.embeddings import Embeddings
from tellapart.embeddings.collection import open_collection
from tellapart.embeddings.neighbours import RandomPairs, nearest, nearest_others
from tellapart.errors import ConfigError, DataError
from tellapart.runtime.console import Console

QUIET = Console(quiet=True)


@pytest.fixture
def vectors(tmp_path):
    random = np.random.default_rng(0)
    found = Embeddings(
        random.standard_normal((40, 6)) + 2, [f"item {i}" for i in range(40)], [0, 1] * 20
    )
    found.save(tmp_path / "v.npz")
    found.save(tmp_path / "folder")
    return found


def pictures(folder, count=12):
    random = np.random.default_rng(0)
    for i in range(count):
        (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
        raw = random.integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(raw).resize((32, 32)).save(folder / str(i % 2) / f"{i}.png")


def test_neighbours_and_random_pairs_by_the_definition(vectors):
    unit = vectors.vectors / np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    value, row = nearest(vectors.vectors[:3], vectors.vectors, 4)
    np.testing.assert_array_equal(row.numpy(), np.argsort(-cosine[:3], 1)[:, :4])
    np.testing.assert_allclose(value.numpy(), -np.sort(-cosine[:3], 1)[:, :4], atol=1e-6)
    np.fill_diagonal(cosine, -2)
    _, others = nearest_others(vectors.vectors, 2)
    np.testing.assert_array_equal(others.numpy(), np.argsort(-cosine, 1)[:, :2])
    pairs = RandomPairs.of(vectors.vectors)
    every = cosine[np.triu_indices(40, 1)]
    assert pairs.mean == pytest.approx(every.mean(), abs=1e-5)
    assert pairs.std == pytest.approx(every.std(), abs=1e-5)
    assert pairs.percentile(np.median(every)) == pytest.approx(50, abs=1)
    assert (pairs.percentile(-1), pairs.percentile(1.01)) == (0, 100)


def test_many_pairs_are_drawn_of_different_rows():
    pairs = RandomPairs.of(np.eye(400, dtype=np.float32))
    assert len(pairs.similarities) == 20_000
    assert pairs.similarities.max() == 0  # a row is never paired with itself
    assert RandomPairs.of(np.ones((1, 3))).mean is None


@pytest.mark.parametrize("name", ["v.npz", "folder"])
def test_saved_vectors_are_searched_by_id(vectors, tmp_path, name, capsys):
    near = ta.search(tmp_path / name, ["item 5"], k=3, console=QUIET)[0]
    unit = vectors.vectors / np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
    cosine = unit @ unit[5]
    cosine[5] = -2
    assert [one["id"] for one in near] == [f"item {i}" for i in np.argsort(-cosine)[:3]]
    assert near[0]["similarity"] == pytest.approx(cosine.max(), abs=1e-4)
    pairs = RandomPairs.of(vectors.vectors)
    assert near[0]["percentile"] == pytest.approx(pairs.percentile(cosine.max()), abs=0.3)
    assert near[0]["random_pairs"] == pairs.to_dict()
    cli.main(["search", str(tmp_path / name), "item 5", "--k", "2"])
    printed = capsys.readouterr().out
    assert f"random pairs {pairs.mean:.2f} ± {pairs.std:.2f}" in printed
    with pytest.raises(DataError, match="is not the id of an item"):
        ta.search(tmp_path / name, ["photo.jpg"], console=QUIET)


def test_vectors_are_shown_beside_their_data(tmp_path):
    pictures(tmp_path / "photos")
    data = str(tmp_path / "photos")
    source = ta.open_source(data)
    rows = np.random.default_rng(0).permutation(12)
    Embeddings(np.eye(12)[rows], [source.ids[r] for r in rows]).save(tmp_path / "v.npz")
    items = open_collection(tmp_path / "v.npz", data, console=QUIET)
    assert items.source.ids == items.vectors.ids
    Embeddings(np.eye(2), ["0/0.png", "elsewhere.png"]).save(tmp_path / "w.npz")
    with pytest.raises(DataError, match=r"1 of 2 ids .* 'elsewhere\.png'"):
        open_collection(tmp_path / "w.npz", data, console=QUIET)


def test_any_encoder_searches_and_reports_without_a_training(tmp_path, capsys):
    pictures(tmp_path / "photos")
    data = str(tmp_path / "photos")
    ta.train("instdisc", data=data, out=tmp_path / "run", steps=2, threads=1, console=QUIET)
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((tmp_path / "run" / "encoder" / "model.safetensors").read_bytes())
    near = api.search(
        weights, [str(tmp_path / "photos" / "0" / "0.png")], data=data, k=3, image_size=32,
        sheet_path=tmp_path / "sheet.png", console=QUIET,
    )[0]  # fmt: skip
    assert near[0]["id"] == "0/0.png"
    assert near[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert (tmp_path / "sheet.png").stat().st_size > 100
    with pytest.raises(ConfigError, match="pass --data"):
        api.search(weights, ["x"], console=QUIET)
    said = api.report(weights, data=data, image_size=32, out=tmp_path / "r.html", console=QUIET)
    page = (tmp_path / "r.html").read_text()
    assert "Not evaluated yet: tellapart eval" in said["verdict"]
    assert "Scores against the baselines" not in page
    assert page.count('class="tile query"') == 8


def test_a_report_of_saved_vectors(vectors, tmp_path):
    api.report(tmp_path / "v.npz", out=tmp_path / "r.html", console=QUIET)
    assert "item 5" in (tmp_path / "r.html").read_text()
    Embeddings(np.eye(1), ["one"]).save(tmp_path / "one.npz")
    with pytest.raises(DataError, match="two items or more"):
        api.report(tmp_path / "one.npz", out=tmp_path / "r.html", console=QUIET)


def test_sentences_stand_in_the_output(tmp_path, capsys):
    words = ["river", "tram", "apple", "cloud", "violin", "brick"]
    lines = [f"the {a} and the {b}" for a in words for b in words if a != b]
    (tmp_path / "s.txt").write_text("\n".join(lines))
    ta.train(
        "simcse", data=str(tmp_path / "s.txt"), out=tmp_path / "run", steps=2, threads=1, width=32,
        layers=2, vocabulary=300, dim=16, batch_size=8, console=QUIET,
    )  # fmt: skip
    capsys.readouterr()
    cli.main(["search", str(tmp_path / "run"), lines[3], "--k", "2"])
    assert lines[3] in capsys.readouterr().out.splitlines()[1]
    cli.main(["search", str(tmp_path / "run"), lines[3], "--k", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found[0]["found"][0]["text"] == lines[3]


def test_the_file_and_second_of_a_sound_stand_in_the_output(tmp_path, capsys):
    pytest.importorskip("soundfile")
    (tmp_path / "calls").mkdir()
    for i in range(3):
        with wave.open(str(tmp_path / "calls" / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(4000)
            tone = 9000 * np.sin(np.arange(4000 * 25) * 0.1 * (i + 1))
            file.writeframes(tone.astype("<i2").tobytes())
    data = str(tmp_path / "calls")
    ta.train("cpc", data=data, out=tmp_path / "run", steps=1, threads=1, console=QUIET)
    first = ta.open_source(data).ids[0]
    near = ta.search(tmp_path / "run", [first], k=2, console=QUIET)[0]
    assert all(one["file"].endswith(".wav") and one["unit"] == "s" for one in near)
    assert all(one["end"] > one["begin"] >= 0 for one in near)
    assert any(one["begin"] > 0 for one in near) or len({one["file"] for one in near}) > 1


def test_a_run_that_cannot_be_written_is_searched(tmp_path, monkeypatch):
    pictures(tmp_path / "photos")
    run = tmp_path / "run"
    ta.train("instdisc", data=str(tmp_path / "photos"), out=run, steps=2, threads=1, console=QUIET)

    def full(*_):
        raise DataError("cannot write: no space left")

    monkeypatch.setattr(Embeddings, "save", full)
    assert len(ta.search(run, ["0/0.png"], k=2, console=QUIET)[0]) == 2


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("q.svg", SVG, r"not an image.*\.svg files are drawings.*PNG"),
        ("q.png", SVG, "not an image: none of JPEG"),
        ("q.pdf", b"%PDF-1.4", r"not an image.*\.pdf files are drawings"),
        ("q.jpg", b"", "the file is empty"),
        ("q.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "damaged: not a whole PNG header"),
        ("q.txt", b"a text", "not an image"),
        ("q.dcm", bytes(200), r"not an image.*\.dcm files are medical"),
    ],
)
def test_a_query_that_is_no_image_is_named_with_a_remedy(tmp_path, capsys, name, raw, said):
    import torch

    from tellapart import encoders

    pictures(tmp_path / "data")
    (tmp_path / name).write_bytes(raw)
    network = encoders.build("small-resnet", channels=3, size=32, seed=0, width=8)
    torch.save(network.backbone.state_dict(), tmp_path / "w.pt")
    words = ["--data", str(tmp_path / "data"), "--width", "8"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", str(tmp_path / "w.pt"), str(tmp_path / name), *words])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert re.search(said, err)
    assert f"{name} cannot be read as an image" in err
    assert "BytesIO" not in err
    assert "0x" not in err
