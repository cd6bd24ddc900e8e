"""A step of NCE with m = 4,096 noise rows and N = 256 queries, D = 128: shared noise, noise per
instance, and the original way of gathering N x m x D rows; seconds, extra memory, and the variance
of each gradient.

The gradient whose variance is shown is that of a linear layer W under the embeddings, z = x W / |x
W|; variance over draws of the noise, summed over W and divided by the squared norm of the mean
gradient.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from common import alternate, extra_memory, median, report_extra, write
from torch import Tensor
from torch.nn import functional as F

from tellapart.functional import losses

N, M, D, TAU = 256, 4096, 128, 0.07
LOG_Z = 1 / (2 * D * TAU**2)  # of Z / S, random unit rows


def original(query: Tensor, bank: Tensor, index: Tensor, noise: Tensor) -> Tensor:
    """Rows gathered for every query and multiplied batch by batch, as the released code does it."""
    rows = torch.cat([index[:, None], noise], 1)
    weight = bank.index_select(0, rows.flatten()).view(*rows.shape, D)
    out = (
        torch.bmm(weight, query[:, :, None])[:, :, 0]
        .div(TAU)
        .sub(LOG_Z + math.log(len(bank)))
        .exp()
    )
    p_noise = noise.shape[1] / len(bank)
    return -(
        (out[:, 0] / (out[:, 0] + p_noise)).log().sum()
        + (p_noise / (out[:, 1:] + p_noise)).log().sum()
    ) / len(query)


def ours(query: Tensor, bank: Tensor, index: Tensor, noise: Tensor) -> Tensor:
    """`losses.nce` with what noise it is given."""
    return losses.nce(query, bank, index, noise, temperature=TAU, log_z=LOG_Z + math.log(len(bank)))


SHAPES = {"shared": (M,), "per instance": (N, M), "original": (N, M)}


def case(who: str, size: int) -> Callable[[], None]:
    """Draw noise, loss, gradient to the queries, write to the bank."""
    draw = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(size, D, generator=draw), dim=1)
    query = F.normalize(torch.randn(N, D, generator=draw), dim=1).requires_grad_()
    index = torch.randperm(size, generator=draw)[:N]
    loss = original if who == "original" else ours

    def work() -> None:
        query.grad = None
        loss(query, bank, index, torch.randint(size, SHAPES[who], generator=draw)).backward()
        bank[index] = F.normalize((bank[index] + query.detach()) / 2, dim=1)

    return work


def variance(who: str, draws: int = 60, size: int = 20_000) -> float:
    """Of the gradient to W over draws of the noise, relative to the squared norm of its mean."""
    draw = torch.Generator().manual_seed(1)
    bank = F.normalize(torch.randn(size, D, generator=draw), dim=1)
    index = torch.randperm(size, generator=draw)[:N]
    x = bank[index] + 0.05 * torch.randn(N, D, generator=draw)
    found = []
    for _ in range(draws):
        w = torch.eye(D, requires_grad=True)
        noise = torch.randint(size, SHAPES[who], generator=draw)
        ours(F.normalize(x @ w, dim=1), bank, index, noise).backward()
        found.append(w.grad)
    grads = torch.stack([g for g in found if g is not None])
    return float(grads.var(0).sum() / grads.mean(0).square().sum())


def main() -> None:
    """S = 1,000,000, then shared noise from S = 10,000 to 10,000,000."""
    if sys.argv[1:2] == ["--memory"]:
        report_extra(case(sys.argv[2], int(sys.argv[3])))
        return
    size = 1_000_000
    seconds = alternate({who: case(who, size) for who in SHAPES}, runs=5, warmup=1)
    memory = {who: extra_memory("nce", who, str(size)) for who in SHAPES}
    table: dict[str, object] = {
        who: {"ms": round(1e3 * median(s), 2), "extra MB": round(memory[who] / 1e6, 1)}
        for who, s in seconds.items()
    }
    table["original / shared, time"] = round(
        median(seconds["original"]) / median(seconds["shared"]), 1
    )
    table["original / shared, memory"] = round(memory["original"] / max(memory["shared"], 1), 1)
    table["relative variance of the gradient"] = {
        who: round(variance(who), 4) for who in ("shared", "per instance")
    }
    sizes = {f"S={s:,}": case("shared", s) for s in (10_000, 100_000, 1_000_000, 10_000_000)}
    table["shared, ms"] = {
        name: round(1e3 * median(s), 2) for name, s in alternate(sizes, runs=15).items()
    }
    write("nce", {"threads": torch.get_num_threads()} | table)


if __name__ == "__main__":
    main()
