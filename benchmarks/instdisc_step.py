"""Cost of the memory: one InstDisc step, batch 256, 32 px, small-resnet, all
cores.

Exact softmax over S = 60,000; NCE with m = 4,096 for S = 10,000 to 1,000,000.
"""

from __future__ import annotations

import torch
from common import alternate, median, write
from torch.nn import functional as F

from tellapart.encoders import build
from tellapart.functional import losses
from tellapart.objectives import Batch, InstDisc, InstDiscOptions
from tellapart.objectives.memory import MemoryBank

N, D = 256, 128


def main() -> None:
    """The network alone, then each loss with its backward and its write to the bank."""
    draw = torch.Generator().manual_seed(0)
    encoder = build("small-resnet", channels=3, size=32, head_kind="linear-bn")
    x = torch.rand(N, 3, 32, 32, generator=draw)
    z = F.normalize(torch.randn(N, D, generator=draw), dim=1)

    def network() -> None:
        encoder.zero_grad(set_to_none=True)
        encoder(x).square().sum().backward()

    def objective(size: int, kind: str) -> InstDisc:
        made = InstDisc(InstDiscOptions(loss=kind), 0)
        made.bank = MemoryBank(size, D, generator=torch.Generator().manual_seed(1))
        return made

    def step(made: InstDisc, size: int) -> None:
        rows = z.clone().requires_grad_()
        batch = Batch(
            [], torch.randint(size // N, (N,), generator=draw) + torch.arange(N) * (size // N)
        )
        out = made.loss({"z": rows}, batch, draw)
        out.loss.backward()
        made.after_step(encoder, out)

    cases = {f"softmax S={60_000:,}": (60_000, "softmax")} | {
        f"nce m=4,096 S={size:,}": (size, "nce") for size in (10_000, 60_000, 1_000_000)
    }
    contenders = {"network": network}
    for name, (size, kind) in cases.items():
        made = objective(size, kind)
        contenders[name] = lambda made=made, size=size: step(made, size)
    bank = objective(60_000, "softmax")._rows()
    index = torch.arange(N)

    def dense() -> None:
        rows = z.clone().requires_grad_()
        F.cross_entropy(rows @ bank.T / 0.07, index).backward()

    contenders["dense softmax S=60,000 (plain torch)"] = dense
    seconds = alternate(contenders, runs=15)
    net = median(seconds["network"])
    table = {
        name: {
            "ms": round(1e3 * median(s), 1),
            "share of the step": round(median(s) / (net + median(s)), 3),
        }
        for name, s in seconds.items()
    }
    check = losses.instance_softmax(z, bank, index) - F.cross_entropy(z @ bank.T / 0.07, index)
    write(
        "instdisc_step",
        {"threads": torch.get_num_threads(), "difference to dense": float(check)} | table,
    )


if __name__ == "__main__":
    main()
