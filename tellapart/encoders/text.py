"""Encoders of sentences: any transformers encoder, a small transformer, or a bag of tokens, with a pooler and a head.

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

View = dict[
    str, Tensor
]  # "ids", "mask" (N, L); as the views made it also "position", "keep" (N, L), "cut", "seed" (N,)
OWN = ("small-transformer", "bag-of-tokens")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class SmallTransformer(nn.Module):
    """Token and position embeddings and `layers` of attention; heads of 32."""

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
        found = []
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
            found.append(x)
        return found


class BagOfTokens(nn.Module):
    """Token embeddings with dropout and nothing else: the order of words is lost."""

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(vocabulary, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """The embeddings as the only layer."""
        return [self.dropout(x)]


class Pretrained(nn.Module):
    """An encoder of the transformers library."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        padded = "roberta" in model.config.model_type or model.config.model_type == "camembert"
        self.first_position = (
            int(model.config.pad_token_id) + 1 if padded else 0
        )  # theirs begin behind the padding's

    @property
    def tokens(self) -> nn.Module:
        """Its token embeddings."""
        found: nn.Module = self.model.get_input_embeddings()
        return found

    def forward(self, x: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """The output (N, L, F) of every layer, from token embeddings."""
        given = {"inputs_embeds": x, "attention_mask": mask.long(), "output_hidden_states": True}
        if self.takes_positions:
            given["position_ids"] = position + self.first_position
        return list(self.model(**given).hidden_states[1:])


class TextEncoder(AnyEncoder):
    """A sentence to a vector. Its features are the pooled tokens; the head is for the loss alone (SimCSE, sec. 6.3).

    Args:
        body: layers of token vectors; has `tokens`, its token embeddings. tokenizer: of the `tokenizers` library.
        pooler: "cls", the first token; "mean", of all tokens; "first-last", the mean of first and last layer's means.
        max_length: tokens, special ones among them; the rest of a sentence is cut.
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
        """Whether the order of tokens reaches it through position ids that can be shuffled."""
        return isinstance(self.body, SmallTransformer) or getattr(
            self.body, "takes_positions", False
        )

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    def prepared(self, source: Source) -> Source:
        """The source as tokens of this encoder."""
        # A source of another kind is refused by whoever opened it; this line gives mypy the type.
        return source.tokenised(self.encode) if isinstance(source, TextSource) else source

    def encode(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids of every text and the place of each token's word in it (-1: a special token)."""
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()
        found = self.tokenizer.encode_batch(texts)
        return [(e.ids, [-1 if w is None else w for w in e.word_ids]) for e in found]

    def layers(self, view: View) -> list[Tensor]:
        """The output (N, L, F) of every layer."""
        ids, mask = view["ids"], view["mask"]
        x = self.body.tokens(ids)
        if "keep" in view:  # token cutoff
            x = x * view["keep"][:, :, None]
        if "cut" in view:  # feature cutoff
            x = x * _kept_features(view["seed"], view["cut"], x.shape[2])[:, None, :]
        position = view.get(
            "position", torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        )
        found: list[Tensor] = self.body(x, mask, position)
        return found

    def features(self, view: View) -> Tensor:
        """(N, F), what users take away."""
        return self.pooled(self.layers(view), view["mask"])

    def pooled(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        """(N, F) from the outputs (N, L, F) of the layers."""
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
    """An encoder of sentences: "small-transformer", "bag-of-tokens", or a transformers model (a folder or a hub name).

    Args:
        texts: of the training part; an own network's byte-pair vocabulary is trained on them.
        tokenizer, config: of an encoder that is built again: the tokenizer as JSON, and a transformers configuration;
            the weights are then random.
        layers, vocabulary, width: of the own networks.
        revision: commit, tag or branch of a hub name; the description records the commit.
    Raises:
        MissingExtraError: without tokenizers or transformers. ConfigError: no such model, or not an encoder.
    """
    require(
        name != "bag-of-tokens" or pooler == "mean", "a bag-of-tokens has no layers: --pooler mean"
    )
    require(revision is None or name not in OWN, f"--revision goes with a hub name, {name} is none")
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
            made = TextEncoder(body, words, width=width, **shared)
        else:
            model, words = _pretrained(name, tokenizer, config, dropout, max_length, revision)
            config = _plain(model.config.to_dict())
            revision = getattr(model.config, "_commit_hash", None) or revision
            made = TextEncoder(Pretrained(model), words, width=model.config.hidden_size, **shared)
    made.description = {
        "kind": "text", "encoder": name, "tokenizer": words.to_str(), "config": config, "width": width,
        "layers": layers, "dropout": dropout, **shared, "dim": made.dim,
        **({"revision": revision} if revision else {}),
    }  # fmt: skip
    return made


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-pair vocabulary of `texts`: any string can be written in it, emoji and all scripts included."""
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
    """The model and its tokenizer: from a folder or the hub, or from what a run saved of them.

    Code that a folder or a hub repository brings is never run.
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
                f"--encoder {name} asks for a program of the hub (attn_implementation), which is "
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
    except Exception as error:  # a folder from anyone fails in many ways
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ConfigError(
                f"--encoder {name} brings its own Python code, which is never run; name an "
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
    """A transformers configuration without the fields that name programs or places."""
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
    """The id of the token that stands for a hidden one.

    Raises:
        ConfigError: the tokenizer has none.
    """
    for name in ("[MASK]", "<mask>"):
        if (found := tokenizer.token_to_id(name)) is not None:
            return int(found)
    raise ConfigError("the tokenizer of this model has no mask token, which --objective.mlm needs")


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def _kept_features(seed: Tensor, rate: Tensor, width: int) -> Tensor:
    """(N, F) 0 where a feature of a sentence is cut, else 1: a hash of its seed and the feature, whatever the batch."""
    x = (
        seed[:, None] * 6364136223846793005
        + torch.arange(1, width + 1, device=seed.device) * 1442695040888963407
    )
    x = (x ^ (x >> 31)) * 7046029254386353131
    share = ((x >> 20) & 0xFFFFFF).float() / 0x1000000
    return (share >= rate[:, None]).float()
