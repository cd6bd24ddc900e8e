"""Momentum contrast v1 and v2 (He et al., CVPR 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297)."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ..data import Source, sampler
from ..encoders import AnyEncoder
from ..encoders.norms import batchnorms
from ..errors import ConfigError
from ..functional import losses
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out
from .memory import Queue
from .options import MoCoOptions as MoCoOptions


class MoCo(Objective):
    """A query finds its key among a queue of keys from earlier batches, made by a slowly moving encoder.

    Formula: -log exp(q . k / tau) / (exp(q . k / tau) + sum over the queue exp(q . n / tau)); key encoder <- m key
    encoder + (1 - m) encoder.
    When: batches must be small but negatives many.
    Good to know: the queue takes any size with any batch. Negatives are the queue before this batch's keys enter. A
    query and its key in one BatchNorm group can recognise each other by its statistics: `--bn split` makes groups of
    `--bn-rows` images on one device, and keys are shuffled among groups and ranks. Shuffling without splitting does
    nothing on one device. A queue longer than the data holds an older key of the very image as its negative.
    Chance: ln(K + 1).
    Relations: `instdisc` remembers every image instead of the newest; `simclr` uses the batch itself.
    Published: ImageNet, ResNet-50, linear: v1 60.6 %, v2 67.5 % (200 epochs), 71.1 % (800). CIFAR-10, ResNet-18,
    kNN at 200 epochs: 82.6 %, symmetric 85.3 % (the authors' notebook).
    """

    bounds_information = True

    def __init__(self, options: MoCoOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed, self.views = options, seed, 2
        self.key: AnyEncoder | None = None
        self.queue: Queue | None = None

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        self.key = copy.deepcopy(encoder).requires_grad_(False)
        device = encoder.device
        self.queue = Queue(
            self.options.queue, encoder.dim, generator=sampler.generator("queue", self.seed)
        ).to(device)
        if self.options.queue > len(source) and distributed.is_main():
            warnings.warn(
                f"--objective.queue {self.options.queue} is larger than the {len(source)} images: an older key of the "
                "same image is among its negatives",
                stacklevel=2,
            )

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        first, second = batch.views
        out = {"z": encoder(first), "key": self._keys(second)}
        if self.options.symmetric:
            out |= {"z1": encoder(second), "key1": self._keys(first)}
        return out

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        _, queue = self._parts()
        z, key = embedded["z"], embedded["key"].detach()
        loss = losses.info_nce(z, key, queue.rows, temperature=self.options.temperature)
        writes = {"z": z.detach(), "keys": key}
        if self.options.symmetric:
            other = embedded["key1"].detach()
            loss = (
                loss
                + losses.info_nce(
                    embedded["z1"], other, queue.rows, temperature=self.options.temperature
                )
            ) / 2
            writes["other keys"] = other
        positive = (z.detach() * key).sum(1).mean()
        return Out(loss, {"positive": positive}, writes)

    def chance(self, n: int) -> float | None:
        return math.log(self.options.queue + 1)

    @torch.no_grad()
    def after_step(self, encoder: AnyEncoder, out: Out) -> None:
        key, queue = self._parts()
        m = self.options.momentum
        for slow, fast in zip(key.parameters(), encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - m)
        for name in ("keys", "other keys"):
            if name in out.writes:
                queue.push(distributed.gather(out.writes[name]))

    @torch.no_grad()
    def _keys(self, view: Any) -> Tensor:
        """The key encoder on a view; where BatchNorm would tell, on its rows in another order, over all ranks."""
        key, _ = self._parts()
        key.train()
        if not (self.options.shuffle and batchnorms(key)):
            found: Tensor = key(view)
            return found
        everyone = {
            name: distributed.gather(v)
            for name, v in (view if isinstance(view, dict) else {"": view}).items()
        }
        rows = next(iter(everyone.values()))
        n = len(rows) // distributed.world()
        order, first = (
            distributed.share(torch.randperm(len(rows))).to(rows.device),
            distributed.rank() * n,
        )
        mine = {name: v[order[first : first + n]] for name, v in everyone.items()}
        keys = distributed.gather(key(mine if isinstance(view, dict) else mine[""]))
        return keys[order.argsort()[first : first + n]]

    def _parts(self) -> tuple[AnyEncoder, Queue]:
        if self.key is None or self.queue is None:
            raise ConfigError("call attach(encoder, source) before the first step")
        return self.key, self.queue
