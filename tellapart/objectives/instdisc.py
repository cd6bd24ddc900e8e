"""Instance discrimination with a memory bank (Wu et al., CVPR 2018, arXiv 1805.01978)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..data import Source, sampler
from ..encoders import AnyEncoder, to_device
from ..errors import ConfigError, require
from ..functional import losses, tiled
from ..runtime import distributed
from ..views import evaluation_view
from .base import Batch, Embedded, Objective, Out
from .memory import MemoryBank
from .options import InstDiscOptions as InstDiscOptions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_PASS_BATCH = 256


class InstDisc(Objective):
    """Every instance is a class of its own; its memory row is the class weight.

    Formula: -log P(i | v), P(i | v) = exp(v_i . v / tau) / sum_j exp(v_j . v / tau), over a bank of unit rows
    v_1..v_S; or its noise-contrastive estimate with m samples; plus lambda |v(t) - v(t-1)|^2.
    When: one view per image is all you can afford, or S fits in memory and you want look-alikes.
    Good to know: each row is refreshed once an epoch, so learning starts slowly, and what starts it is whether
    embeddings and rows live in one space from the first step on: a head that ends in a BatchNorm, and a bank filled
    by one pass of the untrained encoder, see to that. With random rows the loss begins at ln S + 1/(2 D tau^2), above
    chance, and that is healthy. The paper's proximal term holds back the network; the authors' code has none and
    averages the memory instead (bank momentum): two things, and both can be off. Z of an encoder whose outputs still
    coincide is 10^6 times that of a trained one: frozen there, every noise sample looks like noise for free; as an
    average it follows the encoder. The bank is split over processes with the data: a rank remembers what it reads.
    Chance: ln S for the softmax, (m+1) ln(m+1) - m ln m for nce.
    Relations: with a queue of the newest embeddings of a slow encoder it is `moco`; with the batch as the only rows,
    one side of `simclr`; with trained rows, `exemplar`; with labels in place of image numbers, a classifier.
    Published: CIFAR-10, ResNet-18, kNN 80.8 %; ImageNet, ResNet-50, kNN 46.5 %, linear 54.0 %.
    """

    sharded = ("bank.rows",)
    everyone: int  # S, where the bank holds a share of it
    log_z: Tensor
    z_seen: Tensor

    def __init__(self, options: InstDiscOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        self.bank: MemoryBank | None = None
        self.register_buffer("log_z", torch.zeros(()))
        self.register_buffer("z_seen", torch.zeros((), dtype=torch.int64))

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        device = encoder.device
        ranks = distributed.world()
        if self.options.noise == "instance" and self.options.loss == "nce" and ranks > 1:
            raise ConfigError(
                "--objective.noise instance gathers N x M rows of the bank, which is in shards here; use shared noise"
            )
        self.everyone = len(source)
        self.bank = MemoryBank(
            len(distributed.mine(self.everyone)),
            encoder.dim,
            momentum=self.options.bank_momentum,
            generator=sampler.generator(
                "bank", self.seed, *([distributed.rank()] if ranks > 1 else [])
            ),
            dtype=DTYPES[self.options.bank_dtype],
        )
        self.bank.to(device)
        if self.options.bank_start == "encoder":
            self._first_pass(encoder, source)

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        z, o = embedded["z"], self.options
        rows, own = (
            self._rows(),
            batch.index // distributed.world(),
        )  # where this rank remembers its instances
        writes = {"z": z.detach(), "index": own}
        if o.loss == "softmax":
            log_z = log_sum_over_shards(z, rows, o.temperature)
            loss = losses.instance_softmax(z, rows, own, temperature=o.temperature, log_z=log_z)
        else:
            drawn = self._drawn(z, rows, own, generator)
            writes["log_z"] = log_z = self._estimate_log_z(drawn.detach())
            uniform = -math.log(self._size())
            loss = losses.nce_of_similarities(
                losses.similarity(z, rows, own[:, None]),
                drawn,
                temperature=o.temperature,
                log_z=log_z,
                log_noise=(uniform, uniform),
            )
        moved = losses.proximal(z, rows.index_select(0, own))
        logs = {"positive": 1 - moved.detach() / 2}  # similarity with its own memory, unit rows
        if o.proximal:
            logs["contrastive"] = loss.detach()
            loss = loss + o.proximal * moved
        if "log_z" in writes:
            logs["log_z"] = writes["log_z"]
        return Out(loss, logs, writes)

    def chance(self, n: int) -> float | None:
        if self.options.loss == "nce":
            return losses.nce_chance(distributed.world() * self._share_of_noise())
        return math.log(self._size())

    def after_step(self, encoder: AnyEncoder, out: Out) -> None:
        self._bank().update(out.writes["index"], out.writes["z"])
        if "log_z" in out.writes:
            self.log_z.copy_(out.writes["log_z"])
            self.z_seen += 1

    @torch.no_grad()
    def _first_pass(self, encoder: AnyEncoder, source: Source) -> None:
        """Fill the bank by the untrained encoder, in train mode: a fresh BatchNorm has no statistics of its own."""
        device = encoder.device
        rows = distributed.mine(len(source))
        order = torch.randperm(len(rows), generator=sampler.generator("first pass", self.seed))
        training = encoder.training
        encoder.train()
        parts = list(order.split(FIRST_PASS_BATCH))
        if len(parts) > 1 and len(parts[-1]) == 1:  # a BatchNorm cannot learn from one row
            parts[-2:] = [torch.cat(parts[-2:])]
        for own in parts:
            index = rows.start + own * rows.step
            view = evaluation_view(source, to_device(source.read(index), device))
            self._bank().fill(own.to(device), encoder(view))
        encoder.train(training)

    def _bank(self) -> MemoryBank:
        if self.bank is None:
            raise ConfigError("call attach(encoder, source) before the first step")
        return self.bank

    def _rows(self) -> Tensor:
        return self._bank().rows

    def _size(self) -> int:
        """S, over all ranks."""
        return len(self._rows()) if distributed.world() == 1 else self.everyone

    def _drawn(self, z: Tensor, rows: Tensor, own: Tensor, generator: torch.Generator) -> Tensor:
        """Inner products (N, M) with the noise; shared noise comes from the shards of all ranks alike."""
        ranks = distributed.world()
        if ranks == 1:
            return losses.similarity(z, rows, self._noise(own, generator))
        generator = sampler.generator(
            "shard", generator.initial_seed(), distributed.rank(), device=z.device
        )
        mine = rows.index_select(0, self._noise(own, generator, self._share_of_noise()))
        return z @ distributed.gather(mine).to(z.dtype).T

    def _share_of_noise(self) -> int:
        """Noise rows that each rank draws: m over all of them, rounded up."""
        return -(-self.options.negatives // distributed.world())

    def _noise(self, own: Tensor, generator: torch.Generator, m: int | None = None) -> Tensor:
        """Rows drawn uniformly from this rank's, with replacement: (M,) shared by the batch, or (N, M)."""
        size, m, n = len(self._rows()), m or self.options.negatives, len(own)

        def draw(high: int, shape: tuple[int, ...]) -> Tensor:
            require(
                high > 0,
                f"no instance is left to draw noise from: {size} instances, --batch-size {n}",
            )
            return torch.randint(high, shape, generator=generator, device=own.device)

        if self.options.noise == "instance":
            if not self.options.exclude_positive:
                return draw(size, (n, m))
            drawn = draw(size - 1, (n, m))
            return drawn + (drawn >= own[:, None])
        if not self.options.exclude_positive:
            return draw(size, (m,))
        taken = own.sort().values - torch.arange(
            n, device=own.device
        )  # gaps: the r-th free row is r + passed
        drawn = draw(size - n, (m,))
        return drawn + torch.searchsorted(taken, drawn, right=True)

    def _estimate_log_z(self, drawn: Tensor) -> Tensor:
        """ln Z after this batch: Z = S * mean over queries and noise (N, M) of exp(v_j . v / tau), in the log domain.

        A frozen Z is the paper's: the mean over the first batches, then a constant. The average follows the
        encoder: Z of a fresh encoder, whose outputs nearly coincide, is a thousand times that of a trained one.
        """
        o, seen = self.options, self.z_seen
        if o.z == "frozen" and bool(seen >= o.z_batches):
            return self.log_z.clone()
        sums = torch.logsumexp(drawn / o.temperature, 1).logsumexp(0)[None]
        pairs = drawn.numel() * distributed.world()
        now = distributed.gather(sums).logsumexp(0) + math.log(self._size() / pairs)
        keep = seen / (seen + 1) if o.z == "frozen" else torch.where(seen > 0, o.z_momentum, 0.0)
        return torch.logaddexp(self.log_z + torch.log(keep), now + torch.log1p(-keep))


def log_sum_over_shards(z: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """(N,) log sum_j exp(v_j . z / tau) over the rows of all ranks, of which this one holds some.

    The queries travel, never the rows: each rank sums over its own for the queries of all, then the sums are joined.
    """
    parts = tiled.logsumexp(
        distributed.gather(z), rows, temperature=temperature
    )  # (R N,) over the rows here
    joined = distributed.gather(parts[None])  # (R, R N)
    first = distributed.rank() * len(z)
    return joined[:, first : first + len(z)].logsumexp(0)
