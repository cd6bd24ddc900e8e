"""The loop. You iterate it: `for step in trainer: ...`; logging, saving and stopping are yours.

Randomness is a function of the step: before each one every generator is seeded from (seed, step), so that a
resumed run needs no saved state of a generator.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import encoders, geometry, objectives
from ..data import ImageSource
from ..data.sampler import batch_at, derive_seed, generator, steps_per_epoch
from ..errors import DataError, TrainingError
from ..objectives import Batch, Out
from . import machine as machines
from .config import TrainConfig
from .optim import learning_rate, optimizer

FORMAT = 1
STATISTICS = 4096  # images that the normalisation is computed from


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
    """Trains an encoder on a source by a method.

    Attributes:
        encoder, objective: what is trained; every parameter that requires a gradient, of both.
        batch: images per step. total: steps of the whole training. number: steps taken.
        chance: the loss at chance, None without a closed form.
    """

    def __init__(self, method: str, config: TrainConfig, source: ImageSource) -> None:
        if len(source) < 2:
            raise DataError(f"{source.name} holds {len(source)} image(s); telling apart needs 2 or more")
        self.config, self.source = config, source
        self.machine = machines.decide(config)
        device = self.machine.torch_device
        self.batch = min(config.batch_size, len(source))
        self.per_epoch = steps_per_epoch(len(source), self.batch)
        self.total = config.steps or max(1, round(config.epochs * self.per_epoch))
        self.number = 0
        self.encoder = build_encoder(config, source).to(device)
        self.objective = objectives.build(method, config.objective, config.seed)
        with self.machine.applied():
            self.objective.attach(self.encoder, source)
        self.objective.to(device)
        self.views = config.views(source.image_size)
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
        config, device = self.config, self.machine.torch_device
        self.encoder.train()
        torch.manual_seed(derive_seed("step", config.seed, self.number))
        random = generator("views", config.seed, self.number, device=device)
        index = batch_at(self.number, len(self.source), self.batch, config.seed)
        images = encoders.to_device(self.source.read(index), device)
        views = [self.views(images, random) for _ in range(self.objective.views)]
        batch = Batch(views, index.to(device))
        with self.machine.autocast():
            embedded = self.objective.embed(self.encoder, batch)
        out = self.objective.loss(embedded, batch, random)
        loss = float(out.loss.detach())
        if loss != loss or loss in (float("inf"), float("-inf")):
            ids = self.source.ids
            raise NotANumber(self.number + 1, [ids[i] for i in index.tolist()])
        lr = learning_rate(config, self.number, self.total, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        out.loss.backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters(), config.clip)
        self.optimizer.step()
        self.objective.after_step(self.encoder, out)
        self.number += 1
        return Step(self.number, loss, lr, out)

    def measure(self, step: Step) -> dict[str, float]:
        """What a line of metrics holds of a step: loss beside chance, logs, and the geometry of the batch."""
        z = step.out.writes["z"].float()
        row: dict[str, float] = {"step": step.number, "epoch": step.number / self.per_epoch, "loss": step.loss}
        if self.chance is not None:
            row["chance"] = self.chance
        row |= {"lr": step.lr} | {name: float(value) for name, value in step.out.logs.items()}
        if len(z) > 1:
            negative = (z.sum(0).square().sum() - len(z)) / (len(z) * (len(z) - 1))
            row["negative"] = float(negative)
            if "positive" in row:
                row["gap"] = row["positive"] - row["negative"]
                row["alignment"] = 2 - 2 * row["positive"]
            row["uniformity"] = float(geometry.uniformity(z))
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
            while len(times) < 6 and sum(times) + (times[-1] if times else 0) < limit:
                began = time.monotonic()
                twin.advance()
                times.append(time.monotonic() - began)
        return min(times)

    def state(self) -> dict[str, Any]:
        """All that a continuation needs; tensors, numbers and strings only."""
        return {
            "format": FORMAT,
            "step": self.number,
            "encoder": self.encoder.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`, bit for bit."""
        self.encoder.load_state_dict(state["encoder"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.number = int(state["step"])

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for m in (self.encoder, self.objective) for p in m.parameters() if p.requires_grad]


def build_encoder(config: TrainConfig, source: ImageSource) -> encoders.Encoder:
    """The encoder of a configuration before training, normalised by the statistics of the source."""
    mean, std = statistics(source)
    return encoders.build(
        config.encoder,
        channels=source.channels,
        size=source.image_size,
        dim=config.dim,
        head_kind=config.head,
        width=config.width,
        mean=mean,
        std=std,
        seed=config.seed,
    )


def statistics(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of values in [0, 1], from up to 4,096 images spread over the source."""
    index = torch.arange(0, len(source), max(1, len(source) // STATISTICS))
    images = source.read(index)
    if isinstance(images, dict):
        flat = images["pixels"].view(-1, source.channels).double() / 255
    else:
        flat = images.permute(0, 2, 3, 1).reshape(-1, source.channels).double() / 255
    return flat.mean(0).float(), flat.std(0).float()
