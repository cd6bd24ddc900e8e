"""Weights of others: names and wrappers of many kinds, position embeddings, hostile files."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from tellapart.encoders import pretrained, weights
from tellapart.encoders.vision import backbone
from tellapart.errors import ConfigError


@pytest.fixture(scope="module")
def resnet():
    return backbone("torchvision/resnet18", channels=3, size=224, small_stem=False)


def _plain(network):
    return {name.removeprefix("model."): t for name, t in network.state_dict().items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "", "_orig_mod.", "net.", "model.", "module.", "backbone.", "encoder_q.", "encoder.module.",
        "model.backbone.", "module.encoder_q.", "module.base_encoder.",
        "_orig_mod.module.backbone.", "module._orig_mod.net.", "model.module.encoder.backbone.",
        "module.backbone.model.",
        "_feature_blocks.", "_fsdp_wrapped_module.model.", "teacher.backbone.",
    ],
)  # fmt: skip
def test_prefixes_are_taken_off_until_nothing_changes(resnet, prefix):
    renamed = {prefix + name: t for name, t in _plain(resnet).items()}
    renamed |= {"head.weight": torch.ones(3), "queue": torch.ones(2, 2)}
    named = weights._named(renamed, "file")
    assert weights.missing(named, resnet) == []
    found, surplus = weights.match(named, resnet)
    assert surplus == []
    assert torch.equal(found["model.conv1.weight"], resnet.state_dict()["model.conv1.weight"])


def test_the_query_encoder_is_taken_of_two(resnet):
    both = {f"encoder_k.{n}": t + 1 for n, t in _plain(resnet).items()}
    both |= {f"encoder_q.{n}": t for n, t in _plain(resnet).items()}
    found, _ = weights.match(both, resnet)
    assert torch.equal(found["model.conv1.weight"], resnet.state_dict()["model.conv1.weight"])


@pytest.mark.parametrize(
    "keys",
    [
        ("state_dict",), ("model_state_dict",), ("state_dict_ema",), ("model_ema",), ("teacher",),
        ("model",), ("net",), ("model", "state_dict"), ("classy_state_dict", "base_model", "model"),
    ],
)  # fmt: skip
def test_wrappers_are_taken_off(tmp_path, keys):
    inner = {"conv.weight": torch.arange(3.0)}
    for key in reversed(keys):
        inner = {key: inner, "epoch": 5, "optimizer": {"state": {}}}
    torch.save(inner, tmp_path / "w.pt")
    found, arch = weights.read(tmp_path / "w.pt")
    assert found.keys() == {"conv.weight"}
    assert arch is None


def test_averaged_weights_come_first(tmp_path):
    saved = {
        name: {"w": torch.full((1,), value)}
        for name, value in (("state_dict", 0.0), ("state_dict_ema", 1.0))
    }
    torch.save(saved, tmp_path / "w.pt")
    assert float(weights.read(tmp_path / "w.pt")[0]["w"]) == 1.0


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/tellapart-test-payload",)


def test_python_objects_get_a_sentence_of_our_own(tmp_path):
    torch.save({"model": Evil()}, tmp_path / "object.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.ckpt")
    for name in ("object.pt", "plain.pth", "module.ckpt"):
        with pytest.raises(ConfigError, match="cannot be read as weights") as caught:
            weights.read(tmp_path / name)
        text = str(caught.value)
        assert "weights_only" not in text
        assert "safe_globals" not in text
        assert "trust" not in text
    with pytest.raises(ConfigError, match="Python object"):
        weights.read(tmp_path / "module.ckpt")
    assert not os.path.exists("/tmp/tellapart-test-payload")


def test_programs_are_named(tmp_path):
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, str(tmp_path / "jit.pt"))
    with pytest.raises(ConfigError, match="cannot be read as weights") as caught:
        weights.read(tmp_path / "jit.pt")
    assert "weights_only" not in str(caught.value)


def _self_reference():
    found: dict = {}
    found["model"] = found
    return found


def _two_references():
    first: dict = {}
    first["model"] = {"state_dict": first}
    return first


HOSTILE = {
    "a dictionary that holds itself": _self_reference,
    "two that hold each other": _two_references,
    "numbers as names": lambda: {5: torch.zeros(3)},
    "tuples as names": lambda: {(1, 2): torch.zeros(3)},
    "no tensors": lambda: {"model": {"a": 1, "b": "x"}},
    "a list": lambda: [torch.zeros(2)],
    "a tensor": lambda: torch.zeros(2),
    "nothing": lambda: {},
    "sparse tensors": lambda: {"a": torch.eye(3).to_sparse()},
    "too many names": lambda: {f"n{i}": torch.zeros(1) for i in range(weights.MOST + 1)},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_dictionaries_end_in_words(tmp_path, kind):
    torch.save(HOSTILE[kind](), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"holds no weights by name|tensors; at most"):
        weights.read(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00.", bytes(1000)]
)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_damaged_files_end_in_words(tmp_path, content, ending):
    (tmp_path / f"w{ending}").write_bytes(content)
    with pytest.raises(ConfigError, match="weights"):
        weights.read(tmp_path / f"w{ending}")


def test_what_is_no_file_ends_in_words(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("x", "y")
    for name in ("pipe.pt", "folder.pt", "zip.pt", "missing.pt", "missing.safetensors"):
        with pytest.raises(ConfigError, match="cannot be read as weights"):
            weights.read(tmp_path / name)


@pytest.mark.parametrize(("built", "wanted"), [(224, 96), (96, 224), (224, 224)])
def test_position_embeddings_are_resized(tmp_path, built, wanted):
    import timm

    name = "vit_tiny_patch16_224"
    source = timm.create_model(name, num_classes=0, img_size=built)
    save_file(source.state_dict(), tmp_path / "v.safetensors")
    made = pretrained.start(
        str(tmp_path / "v.safetensors"), encoder=f"timm/{name}", channels=3, size=wanted, dim=16,
        head_kind="linear", width=16, seed=0,
    )  # fmt: skip
    new = made.backbone.state_dict()["model.pos_embed"]
    assert new.shape[1] == (wanted // 16) ** 2 + 1
    assert torch.equal(new[:, :1], source.pos_embed[:, :1])  # the class token's stays
    if wanted == built:
        assert torch.equal(new, source.pos_embed)
    else:
        old = source.pos_embed.detach()
        assert abs(float(new[:, 1:].mean() - old[:, 1:].mean())) < 1e-3
    assert torch.isfinite(made.eval().features(torch.rand(1, 3, wanted, wanted))).all()


def test_another_network_is_named_with_what_it_lacks(tmp_path, resnet):
    torch.save({"conv9.weight\x1b[2J": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"does not fit the encoder: .* Give the --encoder") as e:
        weights.load_into(resnet, weights.read(tmp_path / "w.pt")[0], "w.pt")
    assert "\x1b" not in str(e.value)
