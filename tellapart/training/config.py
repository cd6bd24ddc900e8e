"""Everything that decides a training, as one flat frozen record; `objective` alone is nested.

A field of None is decided from the data, and what was decided is written to run.json.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from ..encoders.choices import Context, Head, Norm, Pooler
from ..errors import require
from ..objectives import OPTIONS, InstDiscOptions, Options
from ..views.settings import ImageViews, SequenceViews, TextViews

if TYPE_CHECKING:
    from ..data import Source

Kind = TypeVar("Kind")


def setting_names(kind: type) -> set[str]:
    """The fields of a dataclass that a user can set; the others are decided from the data."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {f.name for f in fields if f.metadata.get("option", True)}


def flat_views(cls: type[Kind]) -> type[Kind]:
    """Let the constructor of a configuration take the settings of its views by their own names.

    `TrainConfig(jitter=0.2)` is `TrainConfig(views=ImageViews(jitter=0.2))`, and so is the `replace` of
    dataclasses, which calls the constructor.
    """
    make, views = cls.__init__, _views_of(cls)
    flat = setting_names(views)

    @functools.wraps(make)
    def init(self: Any, *given: Any, **named: Any) -> None:
        changed = {name: named.pop(name) for name in flat & named.keys()}
        if changed:
            named["views"] = dataclasses.replace(named.get("views") or views(), **changed)
        make(self, *given, **named)

    setattr(cls, "__init__", init)  # noqa: B010  assigned as type checkers refuse it
    return cls


def _views_of(cls: type) -> Any:
    """The class of the views of a configuration, None where it has none."""
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    return fields["views"].default_factory if "views" in fields else None


@dataclass(frozen=True)
class CommonConfig:
    """What every training has: encoder, steps, optimiser and the objective's own options."""

    encoder: str = "small-resnet"
    """name of the network; which there are depends on what is learned from."""
    width: int = 16
    """base width of the network."""
    head: Head = "linear"
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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A setting of the views, by its flat name."""
            views = self.__dict__.get("views")
            if views is not None and name in setting_names(type(views)):
                return getattr(views, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def views_for(self, source: Source) -> Any:
        """The distribution of views of a source; what the data decide of it is filled in."""
        raise NotImplementedError  # each kind of data has its own

    @classmethod
    def names(cls) -> set[str]:
        """The names of all settings, those of the views among them."""
        views = _views_of(cls)
        return setting_names(cls) - {"views"} | (setting_names(views) if views else set())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, flat but for `objective`, for run.json."""
        views = getattr(self, "views", None)
        flat = {name: getattr(views, name) for name in setting_names(type(views))} if views else {}
        own = {n: getattr(self, n) for n in setting_names(type(self)) - {"views", "objective"}}
        ordered = {f.name: own[f.name] for f in dataclasses.fields(self) if f.name in own}
        return ordered | flat | {"objective": dataclasses.asdict(self.objective)}

    @classmethod
    def from_dict(cls, method: str, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for a run of `method`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "objective"
        }
        return cls(**plain, objective=OPTIONS[method](**values["objective"]))


@flat_views
@dataclass(frozen=True)
class TrainConfig(CommonConfig):
    """A training on images."""

    encoder: str = "small-resnet"
    """small-resnet, timm/NAME, torchvision/NAME; for cpc: patches."""
    width: int = 16
    """base width of small-resnet; its features are four times as wide."""
    image_size: int | None = None
    """side of a view in pixels; by default decided from the images."""

    views: ImageViews = field(default_factory=ImageViews)
    """the distribution of the views; its settings are flags of their own (`--jitter`)."""

    def views_for(self, source: Source) -> ImageViews:
        return dataclasses.replace(self.views, size=source.about["image_size"])


@flat_views
@dataclass(frozen=True)
class SequenceConfig(CommonConfig):
    """A training on sounds or series."""

    encoder: str = "frames"
    """frames: strided convolutions and a recurrent context."""
    width: int = 128
    """channels of the convolutions, F."""
    head: Head = "none"
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
    views: SequenceViews = field(default_factory=SequenceViews)
    """the distribution of the views; its settings are flags of their own (`--window`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.context_width >= 1, f"--context-width must be 1 or more, got {self.context_width}"
        )
        require(
            all(s >= 1 for s in self.strides),
            f"--strides must be 1 or more each, got {self.strides}",
        )
        frames = self.views.window // math.prod(self.strides)
        require(
            frames >= 2,
            f"--window {self.views.window} makes {frames} frame(s) of {math.prod(self.strides)} steps",
        )

    def views_for(self, source: Source) -> SequenceViews:
        return self.views


@flat_views
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
    head: Head = "tanh"
    """from features to embedding, for the loss alone; tanh: the pooler of BERT; none: the features."""
    pooler: Pooler = "mean"
    """a sentence's vector: cls, mean, or first-last (the mean of first and last layer)."""
    max_length: int = 32
    """tokens of a sentence, special ones among them; the rest is cut."""
    dropout: float = 0.1
    """of the encoder: what makes two passes of a sentence differ."""
    views: TextViews = field(default_factory=TextViews)
    """the distribution of the views; its settings are flags of their own (`--crop`)."""

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

    def views_for(self, source: Source) -> TextViews:
        return self.views


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
