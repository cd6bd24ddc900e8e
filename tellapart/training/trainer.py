"""The loop. You iterate it: `for step in trainer: ...`; logging, saving and stopping are yours.

Randomness is a function of the step: before each one every generator is seeded from (seed, step, rank, piece),
so that a resumed run needs no saved state of a generator.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import encoders, objectives
from ..data import ImageSource, SequenceSource, Source, TextSource
from ..data.sampler import batch_at, derive_seed, generator, steps_per_epoch
from ..encoders import pretrained, synonyms
from ..encoders.norms import batchnorms
from ..errors import ConfigError, DataError, TrainingError, unknown
from ..functional import geometry
from ..objectives import Batch, Out
from ..runtime import distributed
from . import gradient_cache
from . import hardware as machines
from .config import CommonConfig, SequenceConfig, TextConfig, TrainConfig
from .optimizer import learning_rate, optimizer

FORMAT = 1
STATISTICS = 4096  # images that the normalisation is computed from
BLOCK = 128  # instances whose views share a generator: pieces of a batch see the views that the whole sees


class Step(NamedTuple):
    """A step that has been taken: its number (1 = the first), loss in nats, rate, and the objective's logs."""

    number: int
    loss: float
    lr: float
    out: Out


class NotANumber(TrainingError):
    """The loss is not a number; `ids` are the items of the batch."""

    def __init__(self, step: int, ids: list[str]) -> None:
        self.step, self.ids = step, ids
        super().__init__(
            f"the loss of step {step} is not a number; the encoder and the memory are those of step {step - 1}. "
            f"The usual causes: a learning rate that is too high (--lr), a temperature that is too low. "
            f"The batch begins with {', '.join(ids[:3])}"
        )


class Trainer:
    """Trains an encoder on a source by a method; in several processes, each on its share of every batch.

    Attributes:
        encoder, objective: what is trained; every parameter that requires a gradient, of both.
        batch: images per step, of all ranks; share: of this one.
        total: steps of the whole training. number: steps taken.
        chance: the loss at chance, None without a closed form.
    """

    def __init__(self, method: str, config: CommonConfig, source: Source) -> None:
        self.config, self.source = config, source
        self.machine = machines.decide(config)
        device, ranks = self.machine.torch_device, distributed.world()
        self.mine = distributed.mine(len(source))
        self.share = min(config.batch_size, len(source)) // ranks
        self.batch = self.share * ranks
        self.objective = objectives.build(method, config.objective, config.seed)
        if isinstance(source, TextSource) and source.columns > 1 and method != "simcse":
            raise ConfigError(
                f"{method} learns from single sentences; pairs are for simcse, or name a file of lines"
            )
        self.labels = _labels(method, source) if self.objective.needs_labels else None
        _check_sizes(config, source, self.share)
        self.per_epoch = steps_per_epoch(len(source) // ranks, self.share)
        self.total = config.steps or max(1, round(config.epochs * self.per_epoch))
        self.number = 0
        self.encoder = _normalised(build_encoder(config, source), config).to(device)
        _check_batchnorm(self.encoder, config, self.share)
        self.source = source = encoders.prepared(self.encoder, source)
        with self.machine.applied():
            self.objective.attach(self.encoder, source)
        self.objective.to(device)
        self.views = views_for(config, source, self.encoder)
        self.optimizer = optimizer(config, self._parameters())
        self.chance = self.objective.chance(self.batch)

    def __iter__(self) -> Iterator[Step]:
        with self.machine.applied():
            while self.number < self.total:
                yield self.advance()

    def advance(self) -> Step:
        """Take one step.

        Raises:
            NotANumber: the loss is not finite; nothing has been written.
        """
        config = self.config
        self.encoder.train()
        out, backward = self._loss()
        loss = float(distributed.mean(out.loss))
        if loss != loss or loss in (float("inf"), float("-inf")):
            ids = self.source.ids
            raise NotANumber(self.number + 1, [ids[i] for i in self._index().tolist()])
        lr = learning_rate(config, self.number, self.total, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        backward()
        distributed.average_gradients(self._parameters())
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters(), config.clip)
        self.optimizer.step()
        self.objective.after_step(self.encoder, out)
        self.number += 1
        return Step(self.number, loss, lr, out)

    def _loss(self) -> tuple[Out, gradient_cache.Backward]:
        """The loss of this step, and what computes its gradient."""
        config, device = self.config, self.machine.torch_device
        index = self._index()
        label = None if self.labels is None else self.labels[index].to(device)
        rows = Batch([], index.to(device), label)

        def part(start: int, stop: int) -> Batch:
            torch.manual_seed(
                derive_seed("step", config.seed, self.number, distributed.rank(), start)
            )
            views = self._views(index, start, stop)
            return Batch(
                views, rows.index[start:stop], None if label is None else label[start:stop]
            )

        pieces = gradient_cache.Pieces(len(index), part, rows)
        noise = generator("noise", config.seed, self.number, device=device)
        if config.micro_batch and config.micro_batch < len(index):
            return gradient_cache.cached(
                self.objective,
                self.encoder,
                pieces,
                noise,
                self.machine.autocast(),
                config.micro_batch,
            )
        return gradient_cache.whole(
            self.objective, self.encoder, pieces, noise, self.machine.autocast()
        )

    def _index(self) -> Tensor:
        """(N,) the instances of this step that this rank reads."""
        shard = [] if distributed.world() == 1 else [distributed.rank()]
        own = batch_at(self.number, len(self.mine), self.share, self.config.seed, *shard)
        return self.mine.start + own * self.mine.step

    def _views(self, index: Tensor, start: int, stop: int) -> list[Any]:
        """The views of rows start to stop of a batch: those that the whole batch has, whatever the piece."""
        device = self.machine.torch_device
        found: list[list[Any]] = [[] for _ in range(self.objective.views)]
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            images = encoders.to_device(self.source.read(index[first : first + BLOCK]), device)
            random = generator(
                "views", self.config.seed, self.number, distributed.rank(), block, device=device
            )
            for views in found:
                views.append(_rows(self.views(images, random), max(start - first, 0), stop - first))
        return [views[0] if len(views) == 1 else _joined(views) for views in found]

    def measure(self, step: Step) -> dict[str, float]:
        """What a line of metrics holds of a step: loss beside chance, logs, and the geometry of the batch."""
        z = step.out.writes["z"].float()
        row: dict[str, float] = {
            "step": step.number,
            "epoch": step.number / self.per_epoch,
            "loss": step.loss,
        }
        if self.chance is not None:
            row["chance"] = self.chance
        if self.chance is not None and self.objective.bounds_information:
            row["information"] = self.chance - step.loss
        row |= {"lr": step.lr} | {name: float(value) for name, value in step.out.logs.items()}
        if len(z) > 1:
            negative = (z.sum(0).square().sum() - len(z)) / (len(z) * (len(z) - 1))
            row["negative"] = float(negative)
            if "positive" in row:
                row["gap"] = row["positive"] - row["negative"]
                row["alignment"] = 2 - 2 * row["positive"]
            row["uniformity"] = float(geometry.uniformity(z))
            if (
                z.shape[1] > 1 and len(z) > 2
            ):  # one direction is all that a width of one, or a pair of rows, has
                row["effective_rank"] = float(geometry.effective_rank(z))
            row["std"] = float(geometry.relative_std(z))
        return row

    def seconds_per_step(self, limit: float = 3.0) -> float:
        """What a step takes, from a few steps of a copy within `limit` seconds; this trainer is untouched."""
        twin = copy.copy(self)
        twin.encoder, twin.objective = copy.deepcopy(self.encoder), copy.deepcopy(self.objective)
        twin.optimizer = optimizer(self.config, twin._parameters())
        times: list[float] = []
        with self.machine.applied():
            while len(times) < 6 and distributed.share(
                sum(times) + (times[-1] if times else 0) < limit
            ):
                began = time.monotonic()
                with contextlib.suppress(
                    NotANumber
                ):  # the training itself meets it, and keeps the batch
                    twin.advance()
                times.append(time.monotonic() - began)
        return min(times)

    def state(self) -> dict[str, Any]:
        """All that a continuation needs; tensors, numbers and strings only. Shards of several ranks stand apart."""
        shard = self.shard()
        return {
            "format": FORMAT,
            "step": self.number,
            "encoder": self.encoder.state_dict(),
            "objective": {k: v for k, v in self.objective.state_dict().items() if k not in shard},
            "optimizer": self.optimizer.state_dict(),
            "sharded": list(self.objective.sharded),
        }

    def shard(self) -> dict[str, Tensor]:
        """What of the state this rank alone holds; empty in one process, whose state is whole."""
        if distributed.world() == 1:
            return {}
        return {k: v for k, v in self.objective.state_dict().items() if k in self.objective.sharded}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`, bit for bit."""
        self.encoder.load_state_dict(state["encoder"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.number = int(state["step"])

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [
            p for m in (self.encoder, self.objective) for p in m.parameters() if p.requires_grad
        ]


def build_encoder(
    config: CommonConfig, source: Source, *, small_stem: bool | None = None
) -> encoders.AnyEncoder:
    """The encoder of a configuration before training: from nothing, or from the weights that `init` names.

    `small_stem`: of an encoder from nothing, as `encoders.build`.
    """
    if isinstance(source, ImageSource) and isinstance(config, TrainConfig):
        return _image_encoder(config, source, small_stem)
    if isinstance(source, SequenceSource) and isinstance(config, SequenceConfig):
        return _sequence_encoder(config, source)
    if isinstance(source, TextSource) and isinstance(config, TextConfig):
        return _text_encoder(config, source)
    raise ConfigError(
        f"{source.name} holds {source.many}; these settings ({type(config).__name__}) are of other data"
    )


def views_for(config: CommonConfig, source: Source, encoder: encoders.AnyEncoder) -> Any:
    """The distribution of views of a training; words are given for those that the encoder's vocabulary holds."""
    views = config.views_for(source)
    if (
        isinstance(config, TextConfig)
        and config.views.shuffle
        and not getattr(encoder, "has_positions", True)
    ):
        raise ConfigError(f"--shuffle does nothing to {config.encoder}, which takes no positions")
    if (
        isinstance(config, TextConfig)
        and config.views.substitution
        and isinstance(encoder, encoders.TextEncoder)
    ):
        return replace(views, synonyms=synonyms.table(encoder))
    return views


def _text_encoder(config: TextConfig, source: TextSource) -> encoders.AnyEncoder:
    texts = [text for i in range(source.columns) for text in source.column(i)]
    return encoders.text.build(
        config.encoder, seed=config.seed, texts=texts, width=config.width, layers=config.layers,
        vocabulary=config.vocabulary, max_length=config.max_length, dropout=config.dropout, pooler=config.pooler,
        head_kind=config.head, dim=config.dim,
    )  # fmt: skip


def _sequence_encoder(config: SequenceConfig, source: SequenceSource) -> encoders.AnyEncoder:
    if config.encoder != "frames":
        raise unknown("encoder for sounds and series", config.encoder, ["frames"])
    mean, std = _sequence_statistics(source)
    return encoders.sequence.build(
        seed=config.seed, mean=mean, std=std, channels=source.channels, width=config.width,
        context_width=config.context_width, kernels=config.kernels, strides=config.strides, norm=config.norm,
        context=config.context, head_kind=config.head, dim=config.dim,
    )  # fmt: skip


def _image_encoder(
    config: TrainConfig, source: ImageSource, small_stem: bool | None
) -> encoders.AnyEncoder:
    mean, std = statistics(source)
    shared: dict[str, Any] = {
        "channels": source.channels, "size": source.image_size, "dim": config.dim, "head_kind": config.head,
        "width": config.width, "mean": mean, "std": std, "seed": config.seed,
    }  # fmt: skip
    if config.init:
        made = pretrained.start(config.init, encoder=config.encoder, **shared)
    else:
        made = encoders.build(config.encoder, small_stem=small_stem, **shared)
    if "/" in config.encoder:
        _check_depth(made, config.encoder, source)
    return made


def _normalised(encoder: encoders.AnyEncoder, config: CommonConfig) -> encoders.AnyEncoder:
    """The encoder with BatchNorm over what `--bn` says: a rank's batch, groups of rows, or the batch of all ranks."""
    if config.bn == "split" and not isinstance(encoder, encoders.Encoder):
        raise ConfigError(
            "--bn split is of networks on images; give --norm channel, or a head without BatchNorm"
        )
    if config.bn == "split":
        encoder.bn_rows = config.bn_rows
    elif config.bn == "global" and distributed.world() > 1:
        if machines.decide(config).torch_device.type != "cuda":
            raise ConfigError(
                "--bn global over several processes exists on GPUs only; use --bn local or split here"
            )
        encoder = torch.nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    return encoder


def _check_sizes(config: CommonConfig, source: Source, share: int) -> None:
    if len(source) < 2:
        raise DataError(
            f"{source.name} holds {len(source)} of its {source.many}; telling apart needs 2 or more"
        )
    if share < 1:
        raise ConfigError(
            f"--batch-size {config.batch_size} leaves nothing for each of {distributed.world()} processes"
        )


def _check_depth(encoder: encoders.Encoder, name: str, source: ImageSource) -> None:
    """Let a network of a library read an empty image: it may be too deep for images so small."""
    encoder.eval()
    try:
        with torch.no_grad():
            encoder.features(torch.zeros(1, source.channels, source.image_size, source.image_size))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{name} cannot read images of {source.image_size} px ({str(error).splitlines()[0]}); give a larger "
            "--image-size, or another --encoder"
        ) from error
    encoder.train()


def _check_batchnorm(encoder: encoders.AnyEncoder, config: CommonConfig, share: int) -> None:
    if not batchnorms(encoder):
        return
    if share < 2:
        raise ConfigError(
            "BatchNorm needs 2 items or more at once on every rank: raise --batch-size"
        )
    whole_groups = (
        config.bn == "split" and share >= 2 * config.bn_rows
    )  # of 2 or more, whatever --micro-batch
    if config.micro_batch == 1 and not whole_groups:
        raise ConfigError("BatchNorm needs 2 items or more at once: raise --micro-batch")


def _labels(method: str, source: Source) -> Tensor:
    if source.labels is None or not bool((source.labels >= 0).any()):
        raise DataError(
            f"{method} learns from labels, and {source.name} has none: put the {source.many} into one folder per "
            "class, or choose a method without labels (simclr)"
        )
    return torch.from_numpy(source.labels)


def statistics(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of values in [0, 1], from up to 4,096 images spread over the source."""
    index = torch.arange(0, len(source), max(1, len(source) // STATISTICS))
    images = source.read(index)
    if isinstance(images, dict):
        flat = images["pixels"].view(-1, source.channels).double() / 255
    else:
        flat = images.permute(0, 2, 3, 1).reshape(-1, source.channels).double() / 255
    return flat.mean(0).float(), flat.std(0).float()


def _sequence_statistics(source: SequenceSource) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of the values of up to 512 sequences; sounds lie in [-1, 1]."""
    index = torch.arange(0, len(source), max(1, len(source) // 512))
    values = source.read(index)["values"].double()
    if source.kind == "audio":
        return torch.zeros(source.channels), (values / 32768).std(0).float()
    return values.mean(0).float(), values.std(0).float()


def _rows(view: Any, start: int, stop: int) -> Any:
    """Rows start to stop of a view: a tensor, or a dict of them."""
    if isinstance(view, dict):
        return {name: value[start:stop] for name, value in view.items()}
    return view[start:stop]


def _joined(views: list[Any]) -> Any:
    """Views of several blocks as one; sentences are padded to the longest of all."""
    if not isinstance(views[0], dict):
        return torch.cat(views)
    longest = max(view["ids"].shape[-1] for view in views) if "ids" in views[0] else 0
    joined = {}
    for name, first in views[0].items():
        values = [view[name] for view in views]
        if longest and first.ndim > 1:
            empty = -1 if name == "word" else 0
            values = [F.pad(v, (0, longest - v.shape[-1]), value=empty) for v in values]
        joined[name] = torch.cat(values)
    return joined
