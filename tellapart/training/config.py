"""Everything that decides a training, as one flat frozen record; `objective` alone is nested.

A field of None is decided from the data, and what was decided is written to run.json.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ..data import Source
from ..encoders.heads import Kind
from ..encoders.sequence import Context, Norm
from ..encoders.text import Pooler
from ..errors import require
from ..objectives import METHODS, InstDiscOptions, Options
from ..views.audio import SequenceViews
from ..views.colour import HueSpace
from ..views.images import ImageViews
from ..views.text import TextViews


@dataclass(frozen=True)
class CommonConfig:
    """What every training has: encoder, steps, optimiser and the objective's own options."""

    encoder: str = "small-resnet"
    """name of the network; which there are depends on what is learned from."""
    width: int = 16
    """base width of the network."""
    head: Kind = "linear"
    """from features to embedding: one layer or more, each followed by a BatchNorm or not; none: the features."""
    dim: int = 128
    """width of the embedding."""

    epochs: float = 30.0
    """passes over the training part; a part of one is possible."""
    steps: int | None = None
    """number of steps instead of epochs."""
    batch_size: int = 256
    """images per step, over all processes; at most the number of images."""
    micro_batch: int | None = None
    """images that the network sees at once, of a batch that does not fit: the gradient is that of the whole batch."""
    bn: Literal["local", "split", "global"] = "local"
    """BatchNorm over a process's batch, over groups of `bn_rows`, or over all processes (GPU)."""
    bn_rows: int = 32
    """images of a group of --bn split."""
    init: str | None = None
    """weights to start from: timm/NAME, a run folder, or a file of weights; with their network and normalisation."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    """sgd (torch), adamw (torch) or lars (timm)."""
    lr: float = 0.03
    """peak learning rate."""
    momentum: float = 0.9
    """of sgd and lars; the first beta of adamw."""
    nesterov: bool = False
    """Nesterov momentum, sgd only."""
    weight_decay: float = 5e-4
    """per step, times the learning rate."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine to zero; or falling at each of `lr_steps`; or constant."""
    lr_steps: tuple[float, ...] = (0.6, 0.8)
    """for the step schedule: shares of the training at which the rate falls."""
    lr_factors: tuple[float, ...] = ()
    """for the step schedule: the rate from each of `lr_steps` on, in parts of the peak; none: times 0.1 at each."""
    warmup: float = 0.0
    """epochs of linear rise to the peak."""
    clip: float = 0.0
    """largest norm of the gradient; 0: none."""

    seed: int = 0
    """of everything random; the same seed gives the same weights, bit for bit, on one machine."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the network; auto: bfloat16 where the processor computes in it."""
    threads: int | None = None
    """processor threads; by default what torch would take."""
    validation: int = 0
    """training images held out by the hash of their names, for tuning."""
    eval_every: int | None = None
    """steps between two looks: kNN on held-out training items, within 5 % of the time."""
    stop: Literal["end", "auto"] = "end"
    """auto: stop when five checkpoints in a row are no better by the measure that chooses best-unlabelled."""
    labels: str | None = None
    """lines of id,label: they choose the checkpoint best-unlabelled, and nothing else."""
    cache: str | None = None
    """folder for decoded images; by default $TELLAPART_CACHE or ~/.cache/tellapart."""
    cache_limit: float = 50.0
    """GB that the cache may take."""
    log_every: int = 20
    """steps between two lines of metrics.jsonl."""
    save_every: int | None = None
    """steps between two checkpoints; by default 20 in a training."""
    tensorboard: bool = False
    """also write TensorBoard events (pip install 'tellapart[track]')."""

    objective: Options = field(default_factory=InstDiscOptions)
    """options of the method."""

    def __post_init__(self) -> None:
        require(self.width >= 8, f"--width must be 8 or more, got {self.width}")
        for name in ("dim", "batch_size", "log_every"):
            require(
                getattr(self, name) >= 1,
                f"{_flag(name)} must be 1 or more, got {getattr(self, name)}",
            )
        for name in ("steps", "save_every", "threads", "micro_batch", "eval_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{_flag(name)} must be 1 or more, got {value}")
        for name in ("epochs", "lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{_flag(name)} must be above 0, got {value}")
        for name in ("weight_decay", "warmup", "clip", "validation"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{_flag(name)} must be 0 or more, got {value}")
        require(self.bn_rows >= 2, f"--bn-rows must be 2 or more, got {self.bn_rows}")
        require(0 <= self.momentum < 1, f"--momentum must lie in [0, 1), got {self.momentum}")
        require(not self.nesterov or self.momentum > 0, "--nesterov needs --momentum above 0")
        require(
            not self.nesterov or self.optimizer == "sgd",
            f"--nesterov is of sgd, not of {self.optimizer}",
        )
        require(
            all(0 < s < 1 for s in self.lr_steps),
            f"--lr-steps are shares of the training, 0..1: {self.lr_steps}",
        )
        require(
            len(self.lr_factors) in (0, len(self.lr_steps))
            and all(0 <= f < math.inf for f in self.lr_factors),
            f"--lr-factors: none, or one of 0 or more for each of --lr-steps {self.lr_steps}: got {self.lr_factors}",
        )
        for prefix, options in (("--", self), ("--objective.", getattr(self, "objective", None))):
            for name, value in vars(options).items() if options else ():
                finite = not isinstance(value, float) or math.isfinite(value)
                require(
                    finite, f"{prefix}{name.replace('_', '-')} must be a finite number, got {value}"
                )

    def views(self, source: Source) -> Any:
        """The distribution of views of a source."""
        raise NotImplementedError  # each kind of data has its own

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for run.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, method: str, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for a run of `method`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "objective"
        }
        return cls(**plain, objective=METHODS[method][1](**values["objective"]))


@dataclass(frozen=True)
class TrainConfig(CommonConfig):
    """A training on images."""

    encoder: str = "small-resnet"
    """small-resnet, timm/NAME, torchvision/NAME; for cpc: patches."""
    width: int = 16
    """base width of small-resnet; its features are four times as wide."""
    image_size: int | None = None
    """side of a view in pixels; by default decided from the images."""

    area: tuple[float, float] = (0.2, 1.0)
    """share of the image that a crop keeps."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """width / height of a crop."""
    flip: float = 0.5
    """probability of a mirror image."""
    rotation: float = 0.0
    """degrees to either side."""
    translation: float = 0.0
    """share of the side, each way."""
    jitter: float = 1.0
    """probability that the next four act."""
    brightness: float = 0.4
    """factor in 1 +- this."""
    contrast: float = 0.4
    """factor in 1 +- this."""
    saturation: float = 0.4
    """factor in 1 +- this."""
    hue: float = 0.4
    """turn of the colour circle, +- this part of it."""
    hue_space: HueSpace = "hsv"
    """hsv, as torchvision; yiq keeps luma, which is a weaker change."""
    grayscale: float = 0.2
    """probability."""
    blur: float = 0.0
    """probability."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """of the blur, in pixels: lowest and highest."""
    solarize: float = 0.0
    """probability."""
    sobel: float = 0.0
    """probability."""
    cutout: float = 0.0
    """probability of a grey square of a quarter of the area."""
    noise: float = 0.0
    """standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._views(32)  # checks the ranges of the views

    def views(self, source: Source) -> ImageViews:
        return self._views(source.about["image_size"])

    def _views(self, size: int) -> ImageViews:
        shared = {f.name for f in dataclasses.fields(ImageViews)} & {
            f.name for f in dataclasses.fields(self)
        }
        return ImageViews(size=size, **{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class SequenceConfig(CommonConfig):
    """A training on sounds or series."""

    encoder: str = "frames"
    """frames: strided convolutions and a recurrent context."""
    width: int = 128
    """channels of the convolutions, F."""
    head: Kind = "none"
    """from features to embedding, for methods that compare whole sequences; cpc needs none."""
    context_width: int = 128
    """of the recurrent context, H: the width of the features."""
    context: Context = "gru"
    """gru or lstm."""
    norm: Norm = "channel"
    """channel: each frame over its channels; batch: BatchNorm."""
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    """of the convolutions, in steps."""
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    """of the convolutions; their product is the steps from frame to frame."""
    sample_rate: int | None = None
    """Hz that sounds are resampled to; by default that of most files, at most 16,000."""
    window: int = 20_480
    """steps of the signal in a view."""
    gain: float = 0.0
    """decibels to either side."""
    noise: float = 0.0
    """standard deviation of white noise, in those of the item."""
    band_reject: float = 0.0
    """probability that a band of frequencies is silenced."""
    pitch: float = 0.0
    """semitones to either side, by playing faster or slower."""
    time_mask: float = 0.0
    """probability that a stretch of time is silenced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._views()
        require(
            self.context_width >= 1, f"--context-width must be 1 or more, got {self.context_width}"
        )
        require(
            all(s >= 1 for s in self.strides),
            f"--strides must be 1 or more each, got {self.strides}",
        )
        frames = self.window // math.prod(self.strides)
        require(
            frames >= 2,
            f"--window {self.window} makes {frames} frame(s) of {math.prod(self.strides)} steps",
        )

    def views(self, source: Source) -> SequenceViews:
        return self._views()

    def _views(self) -> SequenceViews:
        shared = {f.name for f in dataclasses.fields(SequenceViews)}
        return SequenceViews(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class TextConfig(CommonConfig):
    """A training on sentences."""

    encoder: str = "small-transformer"
    """small-transformer, bag-of-tokens, or a transformers encoder: a folder or a hub name."""
    width: int = 128
    """of the own networks: features of a token and of a sentence."""
    layers: int = 2
    """of small-transformer."""
    vocabulary: int = 8000
    """byte pairs of the own networks, learned from the training part."""
    head: Kind = "tanh"
    """from features to embedding, for the loss alone; tanh: the pooler of BERT; none: the features."""
    pooler: Pooler = "mean"
    """a sentence's vector: cls, mean, or first-last (the mean of first and last layer)."""
    max_length: int = 32
    """tokens of a sentence, special ones among them; the rest is cut."""
    dropout: float = 0.1
    """of the encoder: what makes two passes of a sentence differ."""
    word_deletion: float = 0.0
    """share of the words left out."""
    span_deletion: float = 0.0
    """share of the words left out in one stretch."""
    crop: float = 0.0
    """share of the words cut off at both ends together."""
    reorder: float = 0.0
    """share of the words in each of two stretches that change places."""
    substitution: float = 0.0
    """share of the words given for a synonym: WordNet's where it is installed, else a neighbour among the tokens."""
    token_cutoff: float = 0.0
    """share of the token embeddings set to zero."""
    feature_cutoff: float = 0.0
    """share of the features set to zero in all tokens of a sentence."""
    shuffle: float = 0.0
    """probability that the positions of a sentence are shuffled."""
    span: int = 0
    """most words of a random stretch that is kept alone; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dropout < 1, f"--dropout must lie in [0, 1), got {self.dropout}")
        require(
            self.max_length >= 3, f"--max-length must be 3 tokens or more, got {self.max_length}"
        )
        require(self.layers >= 1, f"--layers must be 1 or more, got {self.layers}")
        require(
            self.vocabulary >= 300,
            f"--vocabulary must be 300 or more (it holds all bytes), got {self.vocabulary}",
        )
        self._views()

    def views(self, source: Source) -> TextViews:
        return self._views()

    def _views(self) -> TextViews:
        shared = {f.name for f in dataclasses.fields(TextViews)} & {
            f.name for f in dataclasses.fields(self)
        }
        return TextViews(**{name: getattr(self, name) for name in shared})


CONFIGS: dict[str, type[CommonConfig]] = {
    "images": TrainConfig, "audio": SequenceConfig, "series": SequenceConfig, "text": TextConfig,
}  # fmt: skip


# What may differ between a run and its continuation: they do not touch a number of the result.
FREE = ("cache", "cache_limit", "device", "tensorboard")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The flags whose values differ, as `--lr 0.03 (now 0.1)`; those that change no result are left out."""
    found = []
    flat_old, flat_new = _flat(old), _flat(new)
    for name in sorted(
        flat_old
    ):  # a setting that an older version did not have stands at its default
        a, b = flat_old.get(name), flat_new.get(name)
        if name not in FREE and a != b:
            found.append(f"{_flag(name)} {a} (now {b})")
    return found


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    out = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in values.items()
        if not isinstance(v, dict)
    }
    for name, inner in values.items():
        if isinstance(inner, dict):
            out |= {f"{name}.{k}": v for k, v in inner.items()}
    return out


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
