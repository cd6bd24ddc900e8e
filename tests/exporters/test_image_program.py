"""An exported image encoder gives the same features where tellapart cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tellapart as ta
from tellapart import api, cli
from tellapart.errors import MissingExtraError, RunError, TellapartError
from tellapart.exporters import export
from tellapart.views import evaluation_view

WITHOUT_US = "import sys; sys.modules['tellapart'] = None; sys.path.insert(0, sys.argv[1]); "


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    ta.train("instdisc", data="digits", out=folder, steps=20)
    return folder


def trained(photos, tmp_path, **options):
    ta.train(
        "simclr",
        data=str(photos),
        out=tmp_path / "run",
        steps=2,
        batch_size=8,
        precision="float32",
        **options,
    )
    return tmp_path / "run"


def elsewhere(folder, code, *arguments):
    """The output of a fresh interpreter that cannot import tellapart."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US + code, str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("encoder", "size"),
    [("small-resnet", 32), ("timm/resnet18", 32), ("timm/resnet10t", 96), ("torchvision/resnet18",
        32),
     ("torchvision/mobilenet_v3_small", 64), ("timm/vit_tiny_patch16_224", 64)],
)  # fmt: skip
def test_features_of_a_file_are_those_of_the_run(encoder, size, photos, tmp_path):
    run = trained(photos, tmp_path, encoder=encoder, image_size=size)
    api.export(run, out=tmp_path / "out")
    loaded = ta.load(run)
    source = loaded.source()
    with torch.inference_mode():
        wanted = loaded.encoder.features(evaluation_view(source, source.read(torch.tensor([3]))))[0]
    code = (
        "import json, torch; from model import load, view\n"
        "with torch.inference_mode(): print(json.dumps(load()(view(sys.argv[2]))[0].tolist()))"
    )
    found = json.loads(elsewhere(tmp_path / "out", code, photos / source.ids[3]))
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_names_are_those_of_the_library(photos, tmp_path):
    import timm

    api.export(
        trained(photos, tmp_path, encoder="timm/resnet10t", image_size=96), out=tmp_path / "out"
    )
    timm.create_model("resnet10t", num_classes=0).load_state_dict(
        load_file(tmp_path / "out" / "model.safetensors")
    )


def test_gray_images_and_a_torchvision_network(tmp_path):
    ta.train(
        "simclr",
        data="digits",
        out=tmp_path / "run",
        steps=1,
        batch_size=8,
        encoder="torchvision/mobilenet_v2",
    )
    assert api.export(tmp_path / "run", out=tmp_path / "out")["checked"]["torch"] <= 1e-5


def test_the_example_is_ten_lines_and_runs(digits_run, photos, tmp_path):
    api.export(digits_run, out=tmp_path / "out")
    assert len((tmp_path / "out" / "example.py").read_text().splitlines()) <= 10
    names = [str(photos / "red" / "0.png"), str(photos / "red" / "1.png")]
    example = str(tmp_path / "out" / "example.py")
    code = f"import runpy; sys.argv = ['example.py', *{names}]; runpy.run_path({example!r})"
    assert "torch.Size([2, 64])" in elsewhere(tmp_path / "out", code)
    alone = subprocess.run([sys.executable, example], capture_output=True, text=True)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.startswith("python example.py IMAGE [IMAGE ...] prints")
    assert "Traceback" not in alone.stderr


def test_onnx_takes_any_batch_and_agrees(digits_run, tmp_path):
    import onnxruntime

    found = api.export(digits_run, out=tmp_path / "out", onnx=True)
    assert found["checked"]["onnxruntime"] <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for n in (1, 5):
        images = np.random.default_rng(n).random((n, 1, 16, 16), np.float32)
        with torch.inference_mode():
            wanted = ta.load(digits_run).encoder.features(torch.from_numpy(images))
        np.testing.assert_allclose(session.run(None, {"images": images})[0], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"fold_batchnorm": True}, {"bf16": True}, {"fold_batchnorm": True, "bf16": True}]
)
def test_what_is_changed_says_what_it_costs(digits_run, tmp_path, options, capsys):
    found = api.export(digits_run, out=tmp_path / "out", onnx=True, **options)
    assert abs(found["lost"]["knn@200, points lost"]) < 3
    assert "knn@20, points lost" in capsys.readouterr().err
    assert "points lost" in (tmp_path / "out" / "README.md").read_text()
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert any("bn1" in n for n in names) != options.get("fold_batchnorm", False)
    halved = options.get("bf16", False)
    assert all(
        (w.dtype == torch.bfloat16) == halved for w in names.values() if w.is_floating_point()
    )


def test_the_card_says_where_it_comes_from(digits_run, tmp_path):
    api.export(digits_run, out=tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text()
    for said in (
        "instdisc",
        "fingerprint",
        "tellapart eval",
        "CC BY 4.0",
        "starting weights",
        "The weights are yours",
    ):
        assert said in card


def test_a_network_that_computes_otherwise_leaves_nothing(digits_run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export.runpy, "run_path", lambda _: {"load": lambda: lambda x: torch.zeros(len(x), 64)}
    )
    with pytest.raises(TellapartError, match="nothing was written"):
        api.export(digits_run, out=tmp_path / "out")
    assert not list(tmp_path.glob("*"))


def test_bad_input(digits_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    with pytest.raises(RunError, match="not empty"):
        api.export(digits_run, out=tmp_path / "used")
    with pytest.raises(RunError, match="is a file"):
        api.export(digits_run, out=tmp_path / "used" / "file")
    with pytest.raises(RunError, match="not a run"):
        api.export(tmp_path, out=tmp_path / "out")
    with pytest.raises(RunError, match="does not exist"):
        api.export(digits_run, out=tmp_path / "out", checkpoint="nowhere.pt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[export\]"):
        api.export(digits_run, out=tmp_path / "out", onnx=True)
    with pytest.raises(SystemExit):
        cli.main(["export", str(tmp_path), "--out", str(tmp_path / "out"), "--json"])
    assert "not a run" in json.loads(capsys.readouterr().out)["error"]


def test_a_query_of_an_item_s_own_file_is_that_item(photos, tmp_path):
    run = trained(photos, tmp_path, image_size=32)
    near = ta.search(run, [photos / "green" / "3.png"], k=1)[0][0]
    assert near["id"] == "green/3.png"
    assert near["similarity"] == pytest.approx(1, abs=1e-4)
