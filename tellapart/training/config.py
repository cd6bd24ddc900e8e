"""Everything that decides a training, as one flat frozen record; `objective` alone is nested.

A field of None is decided from the data, and what was decided is written to run.json.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..encoders.heads import Kind
from ..errors import require
from ..objectives import METHODS, InstDiscOptions, Options
from ..views.colour import HueSpace
from ..views.images import ImageViews


@dataclass(frozen=True)
class TrainConfig:
    """One training: encoder, steps, optimiser, views and the objective's own options."""

    encoder: str = "small-resnet"
    """small-resnet, timm/NAME or torchvision/NAME."""
    width: int = 16
    """base width of small-resnet; its features are four times as wide."""
    head: Kind = "linear"
    """from features to embedding: one layer or two, each followed by a BatchNorm or not."""
    dim: int = 128
    """width of the embedding."""
    image_size: int | None = None
    """side of a view in pixels; by default decided from the images."""

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
    """cosine to zero; or times 0.1 at each of `lr_steps`; or constant."""
    lr_steps: tuple[float, ...] = (0.6, 0.8)
    """for the step schedule: shares of the training at which the rate falls."""
    warmup: float = 0.0
    """epochs of linear rise to the peak."""
    clip: float = 0.0
    """largest norm of the gradient; 0: none."""

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
        # below 8 channels a strided 1 x 1 convolution of oneDNN writes past its memory (torch 2.14, channels_last)
        require(self.width >= 8, f"--width must be 8 or more, got {self.width}")
        for name in ("dim", "batch_size", "log_every"):
            require(getattr(self, name) >= 1, f"{_flag(name)} must be 1 or more, got {getattr(self, name)}")
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
        require(all(0 < s < 1 for s in self.lr_steps), f"--lr-steps are shares of the training, 0..1: {self.lr_steps}")
        self.views(32)  # checks the ranges of the views

    def views(self, size: int) -> ImageViews:
        """The distribution of views at `size` pixels a side."""
        shared = {f.name for f in dataclasses.fields(ImageViews)} & {f.name for f in dataclasses.fields(self)}
        return ImageViews(size=size, **{name: getattr(self, name) for name in shared})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for run.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, method: str, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`, for a run of `method`."""
        kind = METHODS[method][1]
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "objective"
        }
        return cls(**plain, objective=kind(**values["objective"]))


# What may differ between a run and its continuation: they do not touch a number of the result.
FREE = ("cache", "cache_limit", "device", "tensorboard")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The flags whose values differ, as `--lr 0.03 (now 0.1)`; those that change no result are left out."""
    found = []
    flat_old, flat_new = _flat(old), _flat(new)
    for name in sorted(flat_old):  # a setting that an older version did not have stands at its default
        a, b = flat_old.get(name), flat_new.get(name)
        if name not in FREE and a != b:
            found.append(f"{_flag(name)} {a} (now {b})")
    return found


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    out = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if not isinstance(v, dict)}
    for name, inner in values.items():
        if isinstance(inner, dict):
            out |= {f"{name}.{k}": v for k, v in inner.items()}
    return out


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
