"""Sentence encoders: a transformers model, a small transformer, or a bag of tokens.

Shapes: N batch, L tokens, F width of a token and of a sentence, D embedding width.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Source
from ..data.text import TextSource
from ..errors import ConfigError, MissingExtraError, require, unknown
from .choices import Pooler as Pooler
from .encoder import AnyEncoder
from .heads import head

# "ids" and "mask" (N, L); views add "position" and "keep" (N, L), "cut" and "seed" (N,)
View = dict[str, Tensor]
OWN = ("small-transformer", "bag-of-tokens")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class SmallTransformer(nn.Module):
    """A transformer with learned position embeddings; each attention head has width 32.

    Args:
        vocabulary: number of tokens.
        width: F, a multiple of 32.
        layers: number of transformer layers.
        max_length: number of positions.
        dropout: dropout probability.

    Raises:
        ConfigError: the width is not a multiple of 32.
    """

    def __init__(
        self, vocabulary: int, width: int, layers: int, max_length: int, dropout: float
    ) -> None:
        super().__init__()
        require(
            width % 32 == 0, f"--width of a small-transformer must be a multiple of 32, got {width}"
        )
        self.tokens, self.positions = (
            nn.Embedding(vocabulary, width),
            nn.Embedding(max_length, width),
        )
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, width // 32, 4 * width, dropout, F.gelu, batch_first=True
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """The output (N, L, F) of every layer, from token embeddings."""
        x = self.dropout(self.norm(x + self.positions(position)))
        layers = []
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
            layers.append(x)
        return layers


class BagOfTokens(nn.Module):
    """Token embeddings with dropout only; word order is ignored.

    Args:
        vocabulary: number of tokens.
        width: F.
        dropout: dropout probability.
    """

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(vocabulary, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """Return the token embeddings as the only layer."""
        return [self.dropout(x)]


class Pretrained(nn.Module):
    """An encoder of the transformers library.

    Args:
        model: the transformers model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        padded = "roberta" in model.config.model_type or model.config.model_type == "camembert"
        # RoBERTa-like models number positions from the padding id + 1
        self.first_position = int(model.config.pad_token_id) + 1 if padded else 0

    @property
    def tokens(self) -> nn.Module:
        """Its token embeddings."""
        token_embedding: nn.Module = self.model.get_input_embeddings()
        return token_embedding

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """The output (N, L, F) of every layer, from token embeddings."""
        given = {"inputs_embeds": x, "attention_mask": mask.long(), "output_hidden_states": True}
        if self.takes_positions:
            given["position_ids"] = position + self.first_position
        return list(self.model(**given).hidden_states[1:])


class TextEncoder(AnyEncoder):
    """A sentence encoder. Its features are the pooled tokens; the head serves only the loss.

    Source: SimCSE, sec. 6.3.

    Args:
        body: network that returns the output of every layer; its `tokens` are the token embeddings.
        tokenizer: a tokenizer of the `tokenizers` library.
        width: feature width F.
        pooler: "cls": the first token. "mean": the mean of all tokens. "first-last": the mean of
            the token means of the first and last layer.
        max_length: number of tokens, special tokens included; longer sentences are truncated.
        head_kind: kind of projection head, as in `heads.head`.
        dim: embedding width D; with the head "none" it is F.

    Raises:
        ConfigError: the pooler or the head is unknown.
    """

    kinds = ("text",)

    def __init__(
        self,
        body: Any,
        tokenizer: Any,
        *,
        width: int,
        pooler: Pooler,
        max_length: int,
        head_kind: str,
        dim: int,
    ) -> None:
        super().__init__()
        if pooler not in get_args(Pooler):
            raise unknown("pooler", pooler, get_args(Pooler))
        self.body, self.tokenizer, self.width, self.pooler = body, tokenizer, width, pooler
        self.max_length = max_length
        self.dim = width if head_kind == "none" else dim
        self.head = head(head_kind, width, self.dim)

    @property
    def has_positions(self) -> bool:
        """Whether it accepts position ids, so that they can be shuffled."""
        return isinstance(self.body, SmallTransformer) or getattr(
            self.body, "takes_positions", False
        )

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    def prepared(self, source: Source) -> Source:
        """Tokenise the source for this encoder."""
        # the caller has rejected sources of another kind; the check gives mypy the type
        return source.tokenised(self.encode) if isinstance(source, TextSource) else source

    def encode(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """Tokenise texts.

        Args:
            texts: the texts.

        Returns:
            For each text the token ids, and the index of each token's word (-1: a special token).
        """
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()
        encodings = self.tokenizer.encode_batch(texts)
        return [(e.ids, [-1 if w is None else w for w in e.word_ids]) for e in encodings]

    def layers(self, view: View) -> list[Tensor]:
        """Return the output (N, L, F) of every layer."""
        ids, mask = view["ids"], view["mask"]
        x = self.body.tokens(ids)
        if "keep" in view:  # token cutoff
            x = x * view["keep"][:, :, None]
        if "cut" in view:  # feature cutoff
            x = x * _kept_features(view["seed"], view["cut"], x.shape[2])[:, None, :]
        position = view.get(
            "position", torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        )
        layer_outputs: list[Tensor] = self.body(x, mask, position)
        return layer_outputs

    def features(self, view: View) -> Tensor:
        """Compute the features (N, F)."""
        return self.pooled(self.layers(view), view["mask"])

    def pooled(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        """Pool the outputs (N, L, F) of the layers to (N, F)."""
        if self.pooler == "cls":
            return layers[-1][:, 0]
        last = _mean(layers[-1], mask)
        return last if self.pooler == "mean" else (_mean(layers[0], mask) + last) / 2


def build(
    name: str,
    *,
    seed: int,
    texts: list[str] | None = None,
    tokenizer: str | None = None,
    config: dict[str, Any] | None = None,
    width: int = 128,
    layers: int = 2,
    vocabulary: int = 8000,
    max_length: int = 32,
    dropout: float = 0.1,
    pooler: Pooler = "mean",
    head_kind: str = "tanh",
    dim: int = 128,
    revision: str | None = None,
) -> TextEncoder:
    """Build a sentence encoder; the same seed gives the same weights.

    Args:
        name: "small-transformer", "bag-of-tokens", or a transformers model (folder or hub name).
        seed: seed of the weights.
        texts: training texts, on which the byte-pair vocabulary of the first two is trained.
        tokenizer: to rebuild an encoder: its tokenizer as JSON.
        config: to rebuild a transformers model with random weights: its configuration.
        width: feature width F of the first two.
        layers: number of layers of "small-transformer".
        vocabulary: size of the vocabulary to train.
        max_length: number of tokens, special tokens included; longer sentences are truncated.
        dropout: dropout probability.
        pooler: as in `TextEncoder`.
        head_kind: kind of projection head, as in `heads.head`.
        dim: embedding width D.
        revision: commit, tag or branch of a hub name; the description records the commit.

    Raises:
        MissingExtraError: tokenizers or transformers is not installed.
        ConfigError: the model does not exist or is not an encoder.
    """
    require(
        name != "bag-of-tokens" or pooler == "mean", "a bag-of-tokens has no layers: --pooler mean"
    )
    require(
        revision is None or name not in OWN,
        f"--revision requires a name of the Hugging Face hub; {name} is not one",
    )
    shared: dict[str, Any] = {
        "pooler": pooler,
        "max_length": max_length,
        "head_kind": head_kind,
        "dim": dim,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in OWN:
            words = (
                _tokenizers().Tokenizer.from_str(tokenizer)
                if tokenizer
                else train_tokenizer(texts or [], vocabulary)
            )
            size = words.get_vocab_size()
            body: nn.Module = BagOfTokens(size, width, dropout)
            if name == "small-transformer":
                body = SmallTransformer(size, width, layers, max_length, dropout)
            encoder = TextEncoder(body, words, width=width, **shared)
        else:
            model, words = _pretrained(name, tokenizer, config, dropout, max_length, revision)
            config = _plain(model.config.to_dict())
            revision = getattr(model.config, "_commit_hash", None) or revision
            encoder = TextEncoder(
                Pretrained(model), words, width=model.config.hidden_size, **shared
            )
    encoder.description = {
        "kind": "text", "encoder": name, "tokenizer": words.to_str(), "config": config,
        "width": width, "layers": layers, "dropout": dropout, **shared, "dim": encoder.dim,
        **({"revision": revision} if revision else {}),
    }  # fmt: skip
    return encoder


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer, which can encode any string.

    Args:
        texts: the training texts.
        vocabulary: size of the vocabulary.
    """
    package = _tokenizers()
    words = package.Tokenizer(package.models.BPE(unk_token="[UNK]"))
    words.normalizer = package.normalizers.Sequence(
        [package.normalizers.NFKC(), package.normalizers.Lowercase()]
    )
    words.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    words.decoder = package.decoders.ByteLevel()
    ends = [(s, words.token_to_id(s)) for s in ("[CLS]", "[SEP]")]
    words.post_processor = package.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return words


def _pretrained(
    name: str,
    tokenizer: str | None,
    config: dict[str, Any] | None,
    dropout: float,
    max_length: int,
    revision: str | None,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder, from the hub, or from a run's description.

    Code in a folder or a hub repository is never executed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "text") from error
    safe: dict[str, Any] = {"trust_remote_code": False}
    if tokenizer and config:
        anew: Any = transformers.AutoModel
        settings = transformers.AutoConfig.for_model(**_plain(config))
        return anew.from_config(settings, **safe), _tokenizers().Tokenizer.from_str(tokenizer)
    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    safe |= {"revision": revision} if revision else {}
    try:
        settings = transformers.AutoConfig.from_pretrained(name, **safe)
        if "/" in str(getattr(settings, "_attn_implementation", None) or ""):
            raise ConfigError(
                f"--encoder {name} names code of the hub (attn_implementation), which is "
                "never run; remove it from its config.json"
            )
        for setting, value in settings.to_dict().items():
            if (
                ("dropout" in setting or "pdrop" in setting)
                and isinstance(value, float)
                and "classifier" not in setting
            ):
                setattr(settings, setting, dropout)
        if getattr(settings, "is_encoder_decoder", False):
            raise ConfigError(
                f"--encoder {name} is an encoder with a decoder; a plain encoder is needed"
            )
        model = transformers.AutoModel.from_pretrained(name, config=settings, **safe)
        words = transformers.AutoTokenizer.from_pretrained(name, use_fast=True, **safe)
    except ConfigError:
        raise
    except Exception as error:  # loading an arbitrary folder can raise any exception
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ConfigError(
                f"--encoder {name} contains Python code, which is never run; name an "
                "encoder whose architecture the transformers library has"
            ) from error
        hint = "" if Path(name).exists() else f"; own networks are {' and '.join(OWN)}"
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"--encoder {name} is not a transformers encoder that can be loaded{hint} ({reason})"
        ) from error
    room = getattr(settings, "max_position_embeddings", None)
    if room and max_length > room - (2 if "roberta" in settings.model_type else 0):
        raise ConfigError(f"--max-length {max_length} is more than the {room} positions of {name}")
    if not hasattr(words, "backend_tokenizer"):
        raise ConfigError(f"--encoder {name} has no fast tokenizer (tokenizer.json)")
    return model, words.backend_tokenizer


PROGRAMS = (
    "auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "_experts_implementation", "experts_implementation", "quantization_config", "_name_or_path",
)  # fmt: skip


def _plain(config: Any) -> Any:
    """Remove the fields that name code or paths from a transformers configuration."""
    if isinstance(config, dict):
        return {k: _plain(v) for k, v in config.items() if k not in PROGRAMS}
    return config


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    return tokenizers


def mask_token(tokenizer: Any) -> int:
    """Return the id of the mask token.

    Args:
        tokenizer: a tokenizer of the `tokenizers` library.

    Raises:
        ConfigError: the tokenizer has no mask token.
    """
    for name in ("[MASK]", "<mask>"):
        if (token := tokenizer.token_to_id(name)) is not None:
            return int(token)
    raise ConfigError("the tokenizer of this model has no mask token, which --objective.mlm needs")


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def _kept_features(seed: Tensor, rate: Tensor, width: int) -> Tensor:
    """Return a mask (N, F): 0 where feature cutoff drops a feature of a sentence, else 1.

    The mask is a hash of the sentence's seed and the feature, so it does not depend on the batch.
    """
    x = (
        seed[:, None] * 6364136223846793005
        + torch.arange(1, width + 1, device=seed.device) * 1442695040888963407
    )
    x = (x ^ (x >> 31)) * 7046029254386353131
    share = ((x >> 20) & 0xFFFFFF).float() / 0x1000000
    return (share >= rate[:, None]).float()
