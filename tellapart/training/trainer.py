"""The training loop: the caller iterates `for step in trainer: ...`, and logs, saves and stops.

Every generator is seeded from (seed, step, rank, piece) before each step, so that a resumed run
needs no saved generator state.
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

from .. import encoders, objectives
from ..data import Source, modality_of
from ..data.sampler import batch_at, derive_seed, generator, steps_per_epoch
from ..encoders.norms import batchnorms, running_statistics
from ..errors import ConfigError, DataError, RunError, TrainingError
from ..functional import geometry
from ..objectives import Batch, Out
from ..runtime import distributed
from ..views.evaluation import take_rows
from ..views.own import branch_of
from . import adapt, gradient_cache
from . import hardware as machines
from .build import build_encoder, build_views
from .config import CommonConfig
from .optimizer import learning_rate, optimizer

FORMAT = 1
OTHER_WORK = 0.1  # share of a training of --minutes that is left for checkpoints and measurements
BLOCK = 128  # items whose views share a generator, so that micro-batches see equal views


class Step(NamedTuple):
    """A completed step.

    Attributes:
        number: number of the step, from 1.
        loss: loss in nats, averaged over ranks.
        lr: learning rate.
        out: result of the objective, with its logs.
    """

    number: int
    loss: float
    lr: float
    out: Out


class NotANumber(TrainingError):
    """The loss is not a number.

    Args:
        step: the step that failed.
        ids: the items of its batch.
    """

    def __init__(self, step: int, ids: list[str]) -> None:
        self.step, self.ids = step, ids
        super().__init__(
            f"the loss of step {step} is not a number; lower --lr, or raise --temperature. The "
            f"encoder and the memory are those of step {step - 1}; the batch begins with "
            f"{', '.join(ids[:3])}"
        )


class Trainer:
    """Trains an encoder on a source; each rank computes its share of every batch.

    Args:
        method: name of the objective.
        config: the settings.
        source: the training part.
        threads: CPU threads if the settings do not fix them; None: as many as are free.

    Attributes:
        encoder: the trained encoder.
        objective: the objective, whose parameters are trained too.
        batch: items per step over all ranks.
        share: items per step on this rank.
        total: steps of the whole training.
        number: completed steps.
        chance: the loss at chance, None without a closed form.
    """

    def __init__(
        self, method: str, config: CommonConfig, source: Source, *, threads: int | None = None
    ) -> None:
        self.config, self.source = config, source
        self.machine = machines.decide(config, threads)
        device, ranks = self.machine.torch_device, distributed.world()
        self.share = min(config.batch_size, len(source)) // ranks
        self.batch = self.share * ranks
        self.objective = objectives.build(method, config.objective, config.seed)
        self.modality = modality_of(source)
        self.modality.check_training(method, source)
        self.labels = _labels(method, source) if self.objective.needs_labels else None
        _check_sizes(config, source, self.share)
        self.per_epoch = steps_per_epoch(len(source), self.batch)
        self.total = config.steps or max(1, round(config.epochs * self.per_epoch))
        self.number = 0
        self.encoder = _normalised(build_encoder(config, source), config, device).to(device)
        _check_batchnorm(self.encoder, config, self.share)
        start = copy.deepcopy(self.encoder) if config.anchor else None  # before LoRA
        adapt.prepare(self.encoder, config)
        self.encoder.to(device)
        self.source = source = encoders.prepared(self.encoder, source)
        with self.machine.applied():
            self.objective.attach(self.encoder, source)
        self.objective.to(device)
        self.views = build_views(config, source, self.encoder)
        self.optimizer = self._optimizer()
        self.anchor = (
            adapt.Anchor(self.objective, start, config.anchor) if start is not None else None
        )
        self.average = adapt.Average(self.encoder, config.ema) if config.ema else None
        self.chance = self.objective.chance(self.batch)

    def __iter__(self) -> Iterator[Step]:
        with self.machine.applied():
            while self.number < self.total:
                yield self.advance()

    def steps_in(self, minutes: float) -> int:
        """Return the steps that this machine takes in a time, 1 or more, the same on every rank.

        Args:
            minutes: of the whole training; `OTHER_WORK` of it is for checkpoints and measurements.
        """
        seconds = distributed.share(self.seconds_per_step())
        return max(1, int(60 * minutes * (1 - OTHER_WORK) / max(seconds, 1e-9)))

    def use_threads(self, threads: int) -> None:
        """Change the number of threads; the last bits of results depend on it.

        Args:
            threads: number of processor threads, 1 or more.
        """
        self.machine = replace(self.machine, threads=threads)
        torch.set_num_threads(threads)

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
            group["lr"] = lr * group.get("scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        backward()
        distributed.average_gradients(self._parameters())
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters(), config.clip)
        self.optimizer.step()
        self.objective.after_step(self.encoder, out)
        if self.average:
            self.average.update(self.encoder)
        self.number += 1
        return Step(self.number, loss, lr, out)

    def _loss(self) -> tuple[Out, gradient_cache.Backward]:
        """Return the loss of this step and the function that computes its gradient."""
        config, device = self.config, self.machine.torch_device
        index = self._index()
        label = None if self.labels is None else self.labels[index].to(device)
        rows = Batch([], index.to(device), label)

        def part(start: int, stop: int) -> Batch:
            torch.manual_seed(
                derive_seed("step", config.seed, self.number, distributed.rank(), start)
            )
            views = self._views(start, stop)
            return Batch(
                views, rows.index[start:stop], None if label is None else label[start:stop]
            )

        pieces = gradient_cache.Pieces(len(index), part, rows)
        objective: Any = self.anchor or self.objective
        noise = generator("noise", config.seed, self.number, device=device)
        if config.micro_batch and config.micro_batch < len(index):
            return gradient_cache.cached(
                objective,
                self.encoder,
                pieces,
                noise,
                self.machine.autocast(),
                config.micro_batch,
            )
        return gradient_cache.whole(objective, self.encoder, pieces, noise, self.machine.autocast())

    def _index(self) -> Tensor:
        """Return the source rows (N,) of this step that this rank reads."""
        first = distributed.rank() * self.share
        return self._batch()[first : first + self.share]

    def _batch(self) -> Tensor:
        """Return the source rows (R N,) of this step on all ranks; the same for any number."""
        return batch_at(self.number, len(self.source), self.batch, self.config.seed)

    def _views(self, start: int, stop: int) -> list[Any]:
        """Return the views of rows `start` to `stop` of the share of this rank.

        Views are generated in blocks of the whole batch, so that a row has the same views for any
        micro-batch size and any number of ranks.
        """
        device, everyone = self.machine.torch_device, self._batch()
        own = distributed.rank() * self.share
        start, stop = own + start, own + stop
        parts: list[list[Any]] = [[] for _ in range(self.objective.views)]
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            images = encoders.to_device(self.source.read(everyone[first : first + BLOCK]), device)
            random = generator("views", self.config.seed, self.number, 0, block, device=device)
            for branch, views in enumerate(parts):
                view = branch_of(self.views, branch)(images, random)
                views.append(take_rows(view, max(start - first, 0), stop - first))
        return [views[0] if len(views) == 1 else self.modality.join_views(views) for views in parts]

    def measure(self, step: Step) -> dict[str, float]:
        """Return the metrics of a step: loss, chance level, logs, and geometry of the batch.

        Args:
            step: the result of `advance`.
        """
        z = step.out.writes["z"].float()
        row: dict[str, float] = {
            "step": step.number,
            "epoch": step.number / self.per_epoch,
            "loss": step.loss,
        }
        if self.chance is not None:
            row["chance"] = self.chance
        limit = self.objective.information_limit(self.batch)
        if limit is not None:
            row["information"] = limit - step.loss
        row |= {"lr": step.lr} | {name: float(value) for name, value in step.out.logs.items()}
        if len(z) > 1:
            negative = (z.sum(0).square().sum() - len(z)) / (len(z) * (len(z) - 1))
            row["negative"] = float(negative)
            if "positive" in row:
                row["gap"] = row["positive"] - row["negative"]
                row["alignment"] = 2 - 2 * row["positive"]
            row["uniformity"] = float(geometry.uniformity(z))
            # with a width of one or two rows there is only one direction
            if z.shape[1] > 1 and len(z) > 2:
                row["effective_rank"] = float(geometry.effective_rank(z))
            row["std"] = float(geometry.relative_std(z))
        return row

    def seconds_per_step(self, limit: float = 3.0) -> float:
        """Return the seconds per step: the fastest of up to six steps of a copy of this trainer.

        Args:
            limit: seconds after which no further step is started.
        """
        twin = copy.copy(self)
        twin.encoder, twin.objective = copy.deepcopy(self.encoder), copy.deepcopy(self.objective)
        twin.optimizer = twin._optimizer()
        if self.anchor:
            twin.anchor = copy.copy(self.anchor)
            twin.anchor.objective = twin.objective
        twin.average = None
        times: list[float] = []
        with self.machine.applied():
            while len(times) < 6 and distributed.share(
                sum(times) + (times[-1] if times else 0) < limit
            ):
                began = time.monotonic()
                # the training itself reports it, with the batch
                with contextlib.suppress(NotANumber):
                    twin.advance()
                times.append(time.monotonic() - began)
        return min(times)

    def state(self) -> dict[str, Any]:
        """Return the state for resuming, except the shards: tensors, numbers and strings."""
        shard = self.shard()
        return {
            "format": FORMAT,
            "step": self.number,
            "encoder": self.encoder.state_dict(),
            "objective": {k: v for k, v in self.objective.state_dict().items() if k not in shard},
            "optimizer": self.optimizer.state_dict(),
            "sharded": list(self.objective.sharded),
            **({"average": self.average.weights} if self.average else {}),
            **({"anchor": self.anchor.start.state_dict()} if self.anchor else {}),
        }

    def shard(self) -> dict[str, Tensor]:
        """Return the state that only this rank holds; empty in one process."""
        if distributed.world() == 1:
            return {}
        return {k: v for k, v in self.objective.state_dict().items() if k in self.objective.sharded}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`, so that the training continues bit for bit.

        Args:
            state: the value that `state()` returned.

        Raises:
            RunError: the state belongs to another network, objective or optimiser.
        """
        try:
            self.encoder.load_state_dict(state["encoder"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.anchor:
                self.anchor.start.load_state_dict(state["anchor"])
            if self.average:
                for name, weight in self.average.weights.items():
                    weight.copy_(state["average"][name])
            own = running_statistics(self.encoder, self.objective)
            for statistic, value in zip(own, state.get("statistics") or own, strict=True):
                statistic.copy_(value)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise RunError(f"the checkpoint does not fit this training: {reason}") from error
        self.number = int(state["step"])

    @property
    def result(self) -> encoders.AnyEncoder:
        """The encoder that a run keeps: with averaged weights and merged LoRA updates."""
        encoder = self.encoder
        if self.average:
            encoder = copy.deepcopy(encoder)
            self.average.applied(encoder)
        return adapt.merged(encoder) if self.config.lora else encoder

    def _optimizer(self) -> torch.optim.Optimizer:
        return optimizer(
            self.config, adapt.groups(self.config, self.encoder, self.objective.parameters())
        )

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [
            p for m in (self.encoder, self.objective) for p in m.parameters() if p.requires_grad
        ]


def _normalised(
    encoder: encoders.AnyEncoder, config: CommonConfig, device: torch.device
) -> encoders.AnyEncoder:
    """Return the encoder with BatchNorm over the share of a rank, groups of rows or all ranks."""
    if config.bn == "split" or (config.batchnorm == "split" and batchnorms(encoder)):
        try:
            encoder.split_batchnorm(config.bn_rows)
        except ConfigError as error:
            if config.bn == "split":
                raise
            raise ConfigError(
                "--micro-batch requires a network without BatchNorm for this data "
                "(--norm channel, or a head without BatchNorm); --bn local accepts statistics "
                "per micro-batch"
            ) from error
    elif config.bn == "global" and distributed.world() > 1:
        if device.type != "cuda":
            raise ConfigError(
                "--bn global over several processes requires GPUs; use --bn local or --bn split"
            )
        encoder = torch.nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    return encoder


def _check_sizes(config: CommonConfig, source: Source, share: int) -> None:
    if len(source) < 2:
        raise DataError(
            f"{source.name} has {len(source)} of its {source.many} to train on; training needs 2 "
            "or more"
        )
    if share < 1:
        raise ConfigError(
            f"--batch-size {config.batch_size} is too small for {distributed.world()} processes; "
            "give at least one item each"
        )


def _check_batchnorm(encoder: encoders.AnyEncoder, config: CommonConfig, share: int) -> None:
    if not batchnorms(encoder):
        return
    if share < 2:
        raise ConfigError(
            "BatchNorm needs 2 items or more at once on every rank: raise --batch-size"
        )
    if config.micro_batch == 1 and config.batchnorm != "split":
        raise ConfigError("BatchNorm needs 2 items or more at once: raise --micro-batch")


def _labels(method: str, source: Source) -> Tensor:
    if source.labels is None or not bool((source.labels >= 0).any()):
        raise DataError(
            f"{method} learns from labels, and {source.name} has none: put the {source.many} into "
            "one folder per class, or use a method without labels (simclr)"
        )
    return torch.from_numpy(source.labels)
