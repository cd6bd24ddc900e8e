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
SHARED_START = 1 << 28  # values of a random bank that every process draws whole: 1 GB


class InstDisc(Objective):
    """Every instance is its own class; its memory row is the class weight.

    Formula: -log P(i | v), P(i | v) = exp(v_i . v / tau) / sum_j exp(v_j . v / tau), over a bank of
    unit rows v_1..v_S (eq. 2); or its noise-contrastive estimate with m samples (eq. 3-7); plus
    lambda |v(t) - v(t-1)|^2 (eq. 10).
    When: one view per image is all you can afford, or the S rows fit in memory and you want to find
    similar images.
    Good to know: each row is updated once an epoch, so learning starts slowly. A head that ends in
    a BatchNorm, and a bank filled by one pass of the untrained encoder, put embeddings and rows
    into one space from the first step. With random rows the loss starts at
    ln S + 1/(2 D tau^2), above chance; this is healthy. The proximal term of the paper slows the
    network; the authors' code has none and averages the memory instead (bank momentum). They are
    two options, and both can be off. If all outputs coincide, Z is
    exp(1/tau - 1/(2 D tau^2)) times that of evenly spread ones: 7.2 x 10^5 times at D = 128 and
    tau = 0.07. A Z frozen there makes every noise sample look like noise; the average follows the
    encoder. Several processes hold the bank in shards and give the result of one process.
    Chance: ln S for the softmax; for nce (m+1) ln(m+1) - m ln m, which holds at Z = S exp(1/tau),
    the estimate of Z at collapse (a Z frozen before a collapse stays another).
    Relations: with the batch as the bank it is InfoNCE with N - 1 negatives; with a queue of the
    newest embeddings of a slow encoder it is `moco`; with trained rows, `exemplar`; with class
    labels in place of image numbers, a linear classifier on the sphere.
    Published: CIFAR-10, ResNet-18, kNN 80.8 %; ImageNet, ResNet-50, kNN 46.5 %, linear 54.0 %.
    """

    sharded = ("bank.rows",)
    everyone: int  # S, over all processes
    log_z: Tensor
    z_seen: Tensor

    def __init__(self, options: InstDiscOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        self.bank: MemoryBank | None = None
        self.register_buffer("log_z", torch.zeros(()))
        self.register_buffer("z_seen", torch.zeros((), dtype=torch.int64))

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        ranks = distributed.world()
        if self.options.noise == "instance" and self.options.loss == "nce" and ranks > 1:
            raise ConfigError(
                "--objective.noise instance reads N x M rows of the bank, which several processes "
                "hold in shards; use --objective.noise shared"
            )
        self.everyone = len(source)
        self.bank = self._random_bank(encoder.dim).to(encoder.device)
        if self.options.bank_start == "encoder":
            self._first_pass(encoder, source)

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        z, o = embedded["z"], self.options
        own = self._rows_of(batch.index)
        place = torch.arange(len(z), device=z.device)
        writes = {"z": z.detach(), "index": batch.index}
        if o.loss == "softmax":
            log_z = log_sum_over_shards(z, self._bank().rows, o.temperature)
            loss = losses.instance_softmax(z, own, place, temperature=o.temperature, log_z=log_z)
        else:
            drawn = self._drawn(z, batch.index, generator)
            writes["log_z"] = log_z = self._estimate_log_z(drawn.detach())
            uniform = -math.log(self._size())
            loss = losses.nce_of_similarities(
                losses.similarity(z, own, place[:, None]),
                drawn,
                temperature=o.temperature,
                log_z=log_z,
                log_noise=(uniform, uniform),
            )
        moved = losses.proximal(z, own)
        logs = {"positive": 1 - moved.detach() / 2}  # similarity with its own memory, unit rows
        if o.proximal:
            logs["contrastive"] = loss.detach()
            loss = loss + o.proximal * moved
        if "log_z" in writes:
            logs["log_z"] = writes["log_z"]
        return Out(loss, logs, writes)

    def chance(self, n: int) -> float | None:
        if self.options.loss == "nce":
            return losses.nce_chance(self.options.negatives)
        return math.log(self._size())

    def after_step(self, encoder: AnyEncoder, out: Out) -> None:
        index, z = (distributed.gather(out.writes[name]) for name in ("index", "z"))
        ranks = distributed.world()
        mine = index % ranks == distributed.rank()
        self._bank().update(index[mine] // ranks, z[mine])
        if "log_z" in out.writes:
            self.log_z.copy_(out.writes["log_z"])
            self.z_seen += 1

    def _random_bank(self, dim: int) -> MemoryBank:
        """This process's share of the random rows that one process would draw.

        Above `SHARED_START` values every process draws its own: the whole bank may not fit.
        """
        shared = self.everyone * dim <= SHARED_START
        ranks, rank = distributed.world(), distributed.rank()
        key = [] if shared or ranks == 1 else [rank]
        bank = MemoryBank(
            self.everyone if shared else len(distributed.mine(self.everyone)),
            dim,
            momentum=self.options.bank_momentum,
            generator=sampler.generator("bank", self.seed, *key),
            dtype=DTYPES[self.options.bank_dtype],
        )
        if shared and ranks > 1:
            bank.rows = bank.rows[rank::ranks].clone()
        return bank

    @torch.no_grad()
    def _first_pass(self, encoder: AnyEncoder, source: Source) -> None:
        """Fill the bank by the untrained encoder.

        In train mode: a fresh BatchNorm has no statistics of its own.
        """
        device = encoder.device
        rows = distributed.mine(len(source))
        order = torch.randperm(len(rows), generator=sampler.generator("first pass", self.seed))
        training = encoder.training
        encoder.train()
        parts = list(order.split(FIRST_PASS_BATCH))
        if len(parts) > 1 and len(parts[-1]) == 1:  # BatchNorm needs two rows
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

    def _size(self) -> int:
        """S, over all processes."""
        return len(self._bank()) if distributed.world() == 1 else self.everyone

    def _rows_of(self, index: Tensor) -> Tensor:
        """The memory rows (N, D) of this process's instances (N,), whichever process holds them."""
        n, rank = len(index), distributed.rank()
        return self._shared_rows(distributed.gather(index))[rank * n : (rank + 1) * n]

    def _shared_rows(self, index: Tensor) -> Tensor:
        """The memory rows (M, D) of instances (M,) that are the same on every process."""
        rows, ranks = self._bank().rows, distributed.world()
        if ranks == 1:
            return rows.index_select(0, index)
        mine = index % ranks == distributed.rank()
        parts = torch.zeros(len(index), rows.shape[1], device=rows.device)
        parts[mine] = rows[index[mine] // ranks].float()
        return distributed.total(parts).to(rows.dtype)

    def _drawn(self, z: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        """Inner products (N, M) of the queries with the noise."""
        noise = self._noise(index, generator)
        if noise.ndim == 2:
            return losses.similarity(z, self._bank().rows, noise)
        place = torch.arange(len(noise), device=z.device)
        return losses.similarity(z, self._shared_rows(noise), place)

    def _noise(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Instances drawn uniformly with replacement: (M,) for the batch, or (N, M) per row."""
        size, m = self._size(), self.options.negatives
        everyone = distributed.gather(index)
        n = len(everyone)

        def draw(high: int, shape: tuple[int, ...]) -> Tensor:
            require(
                high > 0,
                f"no instance is left to draw noise from: {size} instances, --batch-size {n}",
            )
            return torch.randint(high, shape, generator=generator, device=index.device)

        if self.options.noise == "instance":
            if not self.options.exclude_positive:
                return draw(size, (n, m))
            drawn = draw(size - 1, (n, m))
            return drawn + (drawn >= index[:, None])
        if not self.options.exclude_positive:
            return draw(size, (m,))
        # gaps: the r-th free row is r plus the taken rows before it
        taken = everyone.sort().values - torch.arange(n, device=index.device)
        drawn = draw(size - n, (m,))
        return drawn + torch.searchsorted(taken, drawn, right=True)

    def _estimate_log_z(self, drawn: Tensor) -> Tensor:
        """ln Z after this batch, Z = S times the mean of exp(v_j . v / tau) over (N, M) pairs.

        A frozen Z is the paper's: the mean over the first batches, then a constant. The average
        follows the encoder.
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
    """log sum_j exp(v_j . z / tau) over the memory rows of all processes.

    The queries are gathered, never the rows: each process sums over its own rows for the queries
    of all, and the sums are joined.

    Args:
        z: (N, D) queries of this process; differentiable.
        rows: (S / R, D) memory rows of this process.
        temperature: tau > 0.

    Returns:
        (N,) nats.
    """
    parts = tiled.logsumexp(distributed.gather(z), rows, temperature=temperature)  # (R N,)
    joined = distributed.gather(parts[None])  # (R, R N)
    first = distributed.rank() * len(z)
    return joined[:, first : first + len(z)].logsumexp(0)
