"""Files by which other libraries load an exported folder: timm and sentence-transformers."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from ..data import image_packing
from ..encoders import AnyEncoder, Encoder, TextEncoder
from ..encoders.vision import TimmBackbone

OF_TIMM = (
    "first_conv", "classifier", "fixed_input_size", "pool_size", "tag",
)  # fmt: skip
POOLING = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
PACKAGE = "sentence_transformers.models"


def timm_config(
    encoder: AnyEncoder, network: nn.Module, description: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of config.json that `timm.create_model("local-dir:FOLDER")` reads.

    Args:
        encoder: the exported encoder.
        network: the network of timm.
        description: content of config.json.

    Returns:
        {} unless timm alone builds the network: with the stem for small images or with folded
        BatchNorm only model.py does.
    """
    # timm builds image networks of its own alone
    if not isinstance(encoder, Encoder) or not isinstance(encoder.backbone, TimmBackbone):
        return {}
    if encoder.backbone.small_stem or description.get("folded"):
        return {}
    known: Any = network
    size, channels = description["size"], description["channels"]
    published = known.pretrained_cfg
    arguments: dict[str, Any] = {"in_chans": channels}
    name = description["encoder"].partition("/")[2]
    if "vit" in name or "swin" in name:
        arguments["img_size"] = size
    return {
        "architecture": published.get("architecture") or name.partition(".")[0],
        "num_classes": 0,
        "num_features": int(known.num_features),
        "model_args": arguments,
        "pretrained_cfg": {
            **{key: published[key] for key in OF_TIMM if published.get(key) is not None},
            "num_classes": 0,
            "input_size": [channels, size, size],
            "crop_pct": round(1 / image_packing.MARGIN, 4),
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
        },
    }


def sentence_transformers_files(encoder: AnyEncoder, config: dict[str, Any]) -> dict[str, str]:
    """Return the files that `SentenceTransformer(FOLDER)` reads, by name.

    Args:
        encoder: the exported encoder.
        config: configuration of the transformers network.

    Returns:
        {} for the pooler "first-last", which sentence-transformers does not have.
    """
    # sentence-transformers opens encoders of sentences alone
    if not isinstance(encoder, TextEncoder) or encoder.pooler not in POOLING:
        return {}
    words, room = encoder.tokenizer, encoder.max_length
    padding = words.id_to_token(int(config.get("pad_token_id") or 0))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"{PACKAGE}.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": encoder.width,
            **{name: kind == encoder.pooler for kind, name in POOLING.items()},
        },
        "sentence_bert_config.json": {"max_seq_length": room, "do_lower_case": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": room,
            "pad_token": padding,
        },
    }
    return {name: json.dumps(value, indent=1) for name, value in files.items()}
