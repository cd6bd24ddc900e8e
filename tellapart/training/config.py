"""The settings of a training as a frozen dataclass; `views` and `objective` are nested.

A field that is None is decided from the data, and the decision is written to run.json.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from ..data.options import Fit, ReadOptions
from ..encoders.choices import Context, Head, Norm, Pool, Pooler
from ..errors import require
from ..objectives import OPTIONS, InstDiscOptions, Options
from ..views.settings import ImageViews, SequenceViews, TextViews

if TYPE_CHECKING:
    from ..data import Source

Kind = TypeVar("Kind")
MOST = 2**31  # of a count, which torch and numpy hold in 32 bits somewhere


def setting_names(kind: type) -> set[str]:
    """Return the fields of a dataclass that a user can set; data decide the others.

    Args:
        kind: the dataclass.
    """
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {f.name for f in fields if f.metadata.get("option", True)}


def flat_views(cls: type[Kind]) -> type[Kind]:
    """Let the constructor of a configuration take the settings of its views by their own names.

    `TrainConfig(jitter=0.2)` is `TrainConfig(views=ImageViews(jitter=0.2))`, and so is the
    `replace` of dataclasses, which calls the constructor.

    Args:
        cls: the class of the configuration.
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
    """Return the class of the views of a configuration, None if it has no views."""
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    return fields["views"].default_factory if "views" in fields else None


def _fields(record: Any) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass in their order, () for anything else."""
    return dataclasses.fields(record) if dataclasses.is_dataclass(record) else ()


WIDEST = 65_536  # of features and embeddings


@dataclass(frozen=True)
class CommonConfig:
    """Settings of every training: encoder, steps, optimiser and options of the objective.

    Args:
        encoder: name of the network; the known ones depend on the kind of the data.
        width: base width of the network.
        head: projection head from features to embedding; none: the features.
        dim: width D of the embedding.
        epochs: passes over the training part; may be below 1.
        steps: number of steps instead of epochs.
        minutes: as many steps as this machine takes in this time, instead of epochs; the speed is
            measured before the first step.
        batch_size: images per step, over all processes; at most the number of images.
        micro_batch: images that the network sees at once, for a batch that does not fit
            into memory; the gradient is that of the whole batch.
        bn: BatchNorm statistics over a process's batch (local), over groups of --bn-rows
            (split), or over all processes (global, GPU); auto: split with --micro-batch,
            whose gradient is exact only so, else local.
        bn_rows: images in a group of --bn split.
        init: weights to start from: timm/NAME, a run folder, or a file of weights; their
            network and normalisation come with them.
        freeze: first stages of the backbone that keep their weights, the stem first.
        freeze_bn: the BatchNorm layers of the backbone keep their statistics.
        layer_decay: learning rate of each stage of the backbone, as a share of that of the next.
        ema: decay per step of an average of the weights, which is what the run keeps; 0: none.
        anchor: weight of the distance of the features to those of the starting weights, added to
            the loss; 0: none.
        lora: rank of the updates of the linear layers of a transformer, which alone are trained
            (pip install 'tellapart[lora]'); 0: the layers themselves are trained.
        optimizer: sgd (torch), adamw (torch) or lars (timm).
        lr: peak learning rate.
        momentum: momentum of sgd and lars; the first beta of adamw.
        nesterov: Nesterov momentum; requires --optimizer sgd.
        weight_decay: weight decay, per step and times the learning rate.
        schedule: learning rate: cosine to zero, a step down at each of --lr-steps, or constant.
        lr_steps: shares of the training at which the step schedule falls.
        lr_factors: share of the peak rate after each of --lr-steps; none: times 0.1 at each.
        warmup: epochs of linear rise to the peak.
        clip: largest norm of the gradient; 0: no clipping.
        seed: seed of everything random; the same seed gives the same weights, bit for bit,
            on one machine with the same number of threads.
        device: auto, cpu, cuda or cuda:N.
        precision: precision of the network; auto: bfloat16 where the processor computes in it.
        threads: processor threads; by default as many as are free.
        validation: training images held out by the hash of their names, for tuning.
        eval_every: steps between two measurements of k-NN accuracy on held-out training items.
        stop: auto: stop when five checkpoints in a row are no better by the label-free
            criterion.
        labels: file of id,label lines; they choose the checkpoint best-unlabelled and nothing
            else.
        label_level: folder that is the label: top, last, or a level counted from 1.
        cache: folder for decoded images; by default $TELLAPART_CACHE or ~/.cache/tellapart.
        cache_limit: largest size of the cache in GB.
        verify: compare the cached copy of the data, and every source file, with their checksums.
        log_every: steps between two lines of metrics.jsonl.
        save_every: steps between two checkpoints; by default 20 checkpoints in a training.
        tensorboard: also write TensorBoard events (pip install 'tellapart[track]').
        view: views of your own instead of the built-in ones: module:name of a function of one
            image, or of (batch, generator); several names divided by commas make one view each.
        objective: options of the method.
    """

    encoder: str = "small-resnet"
    width: int = 16
    head: Head = "linear"
    dim: int = 128

    epochs: float = 30.0
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 256
    micro_batch: int | None = None
    bn: Literal["auto", "local", "split", "global"] = "auto"
    bn_rows: int = 32
    init: str | None = None
    freeze: int = 0
    freeze_bn: bool = False
    layer_decay: float = 1.0
    ema: float = 0.0
    anchor: float = 0.0
    lora: int = 0
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = 0.03
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    lr_steps: tuple[float, ...] = (0.6, 0.8)
    lr_factors: tuple[float, ...] = ()
    warmup: float = 0.0
    clip: float = 0.0

    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = None
    validation: int = 0
    eval_every: int | None = None
    stop: Literal["end", "auto"] = "end"
    labels: str | None = None
    label_level: str = "top"
    cache: str | None = None
    cache_limit: float = 50.0
    verify: bool = False
    log_every: int = 20
    save_every: int | None = None
    tensorboard: bool = False
    view: str | None = None

    objective: Options = field(default_factory=InstDiscOptions)

    def __post_init__(self) -> None:
        ReadOptions(label_level=self.label_level)
        require(8 <= self.width <= WIDEST, f"--width must lie in 8..{WIDEST:,}, got {self.width}")
        require(self.dim <= WIDEST, f"--dim must be {WIDEST:,} or less, got {self.dim}")
        for name in ("dim", "batch_size", "log_every"):
            self._count(name, 1)
        for name in ("steps", "save_every", "threads", "micro_batch", "eval_every"):
            if getattr(self, name) is not None:
                self._count(name, 1)
        self._count("validation", 0)
        require(0 <= self.seed < 2**63, f"--seed must lie in 0..2^63 - 1, got {self.seed}")
        for name in ("epochs", "minutes", "lr", "cache_limit"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf,
                f"{_flag(name)} must be above 0, got {value}",
            )
        require(
            0 < self.layer_decay <= 1, f"--layer-decay must lie in (0, 1], got {self.layer_decay}"
        )
        require(0 <= self.ema < 1, f"--ema must lie in [0, 1), got {self.ema}")
        for name in ("freeze", "lora"):
            self._count(name, 0)
        require(
            not (self.anchor and not self.init),
            "--anchor keeps features near those of the starting weights; give --init",
        )
        require(
            not (self.lora and (self.freeze or self.layer_decay < 1)),
            "--lora trains its updates alone; leave out --freeze and --layer-decay",
        )
        for name in ("weight_decay", "warmup", "clip", "anchor"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{_flag(name)} must be 0 or more, got {value}")
        require(self.bn_rows >= 2, f"--bn-rows must be 2 or more, got {self.bn_rows}")
        require(0 <= self.momentum < 1, f"--momentum must lie in [0, 1), got {self.momentum}")
        require(not self.nesterov or self.momentum > 0, "--nesterov needs --momentum above 0")
        require(
            not self.nesterov or self.optimizer == "sgd",
            f"--nesterov requires --optimizer sgd (got {self.optimizer})",
        )
        require(
            all(0 < s < 1 for s in self.lr_steps),
            f"--lr-steps must be shares of the training in 0..1, got {self.lr_steps}",
        )
        require(
            len(self.lr_factors) in (0, len(self.lr_steps))
            and all(0 <= f < math.inf for f in self.lr_factors),
            f"--lr-factors takes one value of 0 or more for each of --lr-steps {self.lr_steps}, "
            f"got {self.lr_factors}",
        )
        for prefix, options in (("--", self), ("--objective.", getattr(self, "objective", None))):
            for name, value in vars(options).items() if options else ():
                finite = not isinstance(value, float) or math.isfinite(value)
                require(
                    finite, f"{prefix}{name.replace('_', '-')} must be a finite number, got {value}"
                )

    def _count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        require(value >= least, f"{_flag(name)} must be {least} or more, got {value}")
        require(value < MOST, f"{_flag(name)} must lie in {least}..{MOST - 1:,}, got {value}")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A setting of the views, by its flat name."""
            views = self.__dict__.get("views")
            if views is not None and name in setting_names(type(views)):
                return getattr(views, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def takes_init(self) -> bool:
        """Whether `init` can name weights to start from."""
        return False

    @property
    def instead_of_init(self) -> str:
        """The remedy if it cannot."""
        return "these encoders start from random weights"

    def views_for(self, source: Source) -> Any:
        """The distribution of views of a source; what the data decide of it is filled in."""
        raise NotImplementedError  # each kind of data has its own

    @classmethod
    def names(cls) -> set[str]:
        """The names of all settings, those of the views among them."""
        views = _views_of(cls)
        return setting_names(cls) - {"views"} | (setting_names(views) if views else set())

    @property
    def batchnorm(self) -> str:
        """The rows that BatchNorm statistics are computed over, with `auto` resolved."""
        if self.bn != "auto":
            return self.bn
        return "split" if self.micro_batch else "local"

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and strings for run.json, flat except for `objective`."""
        views = getattr(self, "views", None)
        known = setting_names(type(views)) if views else set()
        flat = {f.name: getattr(views, f.name) for f in _fields(views) if f.name in known}
        own = {n: getattr(self, n) for n in setting_names(type(self)) - {"views", "objective"}}
        ordered = {f.name: own[f.name] for f in dataclasses.fields(self) if f.name in own}
        return ordered | flat | {"objective": dataclasses.asdict(self.objective)}

    @classmethod
    def from_dict(cls, method: str, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for a run of `method`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "objective"
        }
        options = OPTIONS.get(method)
        if options is None:  # an objective of the user: only its training needs the options
            return cls(**plain, objective=Options())
        return cls(**plain, objective=options(**values["objective"]))


@flat_views
@dataclass(frozen=True)
class TrainConfig(CommonConfig):
    """Settings of a training on images.

    Args:
        encoder: small-resnet, timm/NAME, torchvision/NAME; for cpc: patches.
        width: base width of small-resnet; its features are four times as wide.
        pool: features of a vision transformer of timm: its class token, the mean of its patches,
            or both; auto: what it was trained with.
        image_size: side of a view in pixels; by default decided from the images, and that of the
            starting weights for images above 64 px.
        fit: images longer than 2:1: padded to a square, squeezed into it, or cut in the middle.
        range: values that become black and white in images of more than 8 bits; by default those
            of the folder.
        max_megapixels: bound on the memory of decoding an image, in pixels of 4 bytes each.
        views: distribution of the views; each of its settings is a flag (`--jitter`).
    """

    encoder: str = "small-resnet"
    width: int = 16
    pool: Pool = "auto"
    image_size: int | None = None
    fit: Fit = "pad"
    range: tuple[float, float] | None = None
    max_megapixels: float = 512.0

    views: ImageViews = field(default_factory=ImageViews)

    @property
    def takes_init(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadOptions(fit=self.fit, range=self.range, max_megapixels=self.max_megapixels)

    def views_for(self, source: Source) -> ImageViews:
        """Return the random views of a source.

        Args:
            source: images to train on; their side is the side of the views.
        """
        return dataclasses.replace(self.views, size=source.about["image_size"])


@flat_views
@dataclass(frozen=True)
class SequenceConfig(CommonConfig):
    """Settings of a training on sounds or series.

    Args:
        encoder: frames: strided convolutions and a recurrent context.
        width: channels of the convolutions, F.
        head: from features to embedding, for methods that compare whole sequences; cpc needs
            none.
        context_width: of the recurrent context, H: the width of the features.
        context: gru or lstm.
        norm: channel: each frame over its channels; batch: BatchNorm.
        kernels: of the convolutions, in steps.
        strides: of the convolutions; their product is the steps from frame to frame.
        sample_rate: Hz that sounds are resampled to; by default that of most files, at most
            16,000.
        piece: steps (samples) of an item of a long file; by default decided from the data.
        hop: steps from one item to the next; by default as many as --piece.
        views: distribution of the views; each of its settings is a flag (`--window`).
    """

    encoder: str = "frames"
    width: int = 128
    head: Head = "none"
    context_width: int = 128
    context: Context = "gru"
    norm: Norm = "channel"
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    sample_rate: int | None = None
    piece: int | None = None
    hop: int | None = None
    views: SequenceViews = field(default_factory=SequenceViews)

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadOptions(piece=self.piece, hop=self.hop)
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
            f"--window {self.views.window} must hold 2 frames or more, of "
            f"{math.prod(self.strides)} steps each",
        )

    def views_for(self, source: Source) -> SequenceViews:
        return self.views


@flat_views
@dataclass(frozen=True)
class TextConfig(CommonConfig):
    """Settings of a training on sentences.

    Args:
        encoder: small-transformer, bag-of-tokens, or a transformers encoder: a folder or a hub
            name.
        revision: commit, tag or branch of an encoder on the hub; the run records the commit.
        width: of the own networks: features of a token and of a sentence.
        layers: of small-transformer.
        vocabulary: byte pairs of the own networks, learned from the training part.
        head: from features to embedding, for the loss alone; tanh: the pooler of BERT; none: the
            features.
        pooler: a sentence's vector: cls, mean, or first-last (the mean of first and last layer).
        max_length: tokens of a sentence, special ones among them; the rest is cut.
        dropout: of the encoder: what makes two passes of a sentence differ.
        views: distribution of the views; each of its settings is a flag (`--crop`).
    """

    encoder: str = "small-transformer"
    revision: str | None = None
    width: int = 128
    layers: int = 2
    vocabulary: int = 8000
    head: Head = "tanh"
    pooler: Pooler = "mean"
    max_length: int = 32
    dropout: float = 0.1
    views: TextViews = field(default_factory=TextViews)

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

    @property
    def instead_of_init(self) -> str:
        return "name the weights with --encoder"

    def views_for(self, source: Source) -> TextViews:
        return self.views


# Settings that may differ when a run is resumed, because they do not affect results.
FREE = ("cache", "cache_limit", "verify", "device", "tensorboard")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the flags whose values differ, in the form `--lr 0.03 (now 0.1)`.

    Args:
        old: settings of a run from `to_dict`; settings missing in it are not compared.
        new: current settings; those that do not affect results are not compared.
    """
    differing = []
    flat_old, flat_new = _flat(old), _flat(new)
    # settings that an older version did not have are at their defaults
    for name in sorted(flat_old):
        a, b = flat_old.get(name), flat_new.get(name)
        if name == "bn" and {a, b} == {"auto", "local"} and not flat_new.get("micro_batch"):
            continue  # the default was "local", which "auto" is without micro-batches
        if name not in FREE and a != b:
            differing.append(f"{_flag(name)} {a} (now {b})")
    return differing


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
