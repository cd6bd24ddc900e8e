"""Which instances a step sees: a function of (seed, epoch); resuming needs no state."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor

from ..errors import require


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any parts, the same on every machine and Python.

    >>> derive_seed("step", 0, 7) == derive_seed("step", 0, 7) != derive_seed("step", 0, 8)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator on `device` seeded by `derive_seed(*parts)`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


@functools.lru_cache(maxsize=2)
def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The order (S,) in which an epoch visits its instances, each exactly once."""
    return torch.randperm(size, generator=generator("epoch", seed, epoch))


def steps_per_epoch(size: int, batch: int) -> int:
    """Whole batches in an epoch; the rest of its order is dropped, the next one reshuffles."""
    require(
        1 <= batch <= size,
        f"the batch must lie in 1..{size} (the number of instances), got {batch}",
    )
    return size // batch


def batch_at(step: int, size: int, batch: int, seed: int) -> Tensor:
    """The instances (N,) of step `step`, counted from 0 over all epochs; no instance twice.

    >>> sorted(torch.cat([batch_at(s, 6, 2, seed=0) for s in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    per_epoch = steps_per_epoch(size, batch)
    place = step % per_epoch
    return epoch_order(size, seed, step // per_epoch)[place * batch : (place + 1) * batch]
