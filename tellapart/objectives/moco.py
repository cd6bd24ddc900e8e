"""Momentum contrast (He et al., CVPR 2020, arXiv 1911.05722; v2: Chen et al., 2003.04297)."""

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
    """A query is matched with its key among keys of earlier batches, from a slowly moving encoder.

    Formula: -log exp(q . k / tau) / (exp(q . k / tau) + sum over the queue exp(q . n / tau)); key
    encoder <- m key encoder + (1 - m) encoder.
    When: batches must be small but negatives many.
    Good to know: the queue takes any size with any batch. Negatives are the queue before the keys
    of this batch enter. A query and its key in one BatchNorm group can be matched by the statistics
    of the group: `--bn split` normalises groups of `--bn-rows` images, and keys are shuffled among
    groups and processes. Shuffling without splitting has no effect on one device. A queue longer
    than the data holds an older key of the same image as its negative.
    Chance: ln(K + 1).
    Relations: `instdisc` remembers every image instead of the newest; `simclr` uses the batch
    itself; `info_nce` with the queue as negatives is its loss.
    Published: ImageNet, ResNet-50, linear: v1 60.6 %, v2 67.5 % (200 epochs), 71.1 % (800).
    CIFAR-10, ResNet-18, kNN at 200 epochs: 82.6 %, symmetric 85.3 % (the authors' notebook).
    """

    needs_whole_batch = True

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
                f"--objective.queue {self.options.queue} is larger than the {len(source)} images: "
                "an older key of the same image is among its negatives",
                stacklevel=2,
            )

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        orders = self._orders(len(batch.index))  # before dropout draws from the same generator
        out = self.embed_piece(encoder, batch)
        return out | self._all_keys(batch, orders, [(0, len(batch.index))])

    def embed_piece(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        first, second = batch.views
        out = {"z": encoder(first)}
        return out | ({"z1": encoder(second)} if self.options.symmetric else {})

    def embed_whole(
        self, encoder: AnyEncoder, batch: Batch, bounds: list[tuple[int, int]]
    ) -> Embedded:
        return self._all_keys(batch, self._orders(len(batch.index)), bounds)

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

    def _orders(self, n: int) -> list[Tensor | None]:
        """The order in which each view's keys are normalised; None: as given."""
        key, _ = self._parts()
        views = 2 if self.options.symmetric else 1
        if not (self.options.shuffle and batchnorms(key)):
            return [None] * views
        rows = n * distributed.world()
        return [distributed.share(torch.randperm(rows)) for _ in range(views)]

    def _all_keys(
        self, batch: Batch, orders: list[Tensor | None], bounds: list[tuple[int, int]]
    ) -> Embedded:
        views = [batch.views[1], batch.views[0]]
        return {
            f"key{i}" if i else "key": self._keys(views[i], order, bounds)
            for i, order in enumerate(orders)
        }

    @torch.no_grad()
    def _keys(self, view: Any, order: Tensor | None, bounds: list[tuple[int, int]]) -> Tensor:
        """Keys (N, D) of a view, computed on its rows in `order`, piece by piece."""
        key, _ = self._parts()
        key.train()
        columns = view if isinstance(view, dict) else {"": view}
        n = len(next(iter(columns.values())))
        first = distributed.rank() * n
        if order is not None:
            columns = {
                name: distributed.gather(v)[order.to(v.device)[first : first + n]]
                for name, v in columns.items()
            }
        parts = []
        for start, stop in bounds:
            piece = {name: v[start:stop] for name, v in columns.items()}
            parts.append(key(piece if isinstance(view, dict) else piece[""]))
        keys = torch.cat(parts)
        if order is None:
            return keys
        return distributed.gather(keys)[order.argsort()[first : first + n].to(keys.device)]

    def _parts(self) -> tuple[AnyEncoder, Queue]:
        if self.key is None or self.queue is None:
            raise ConfigError("call attach(encoder, source) before the first step")
        return self.key, self.queue
