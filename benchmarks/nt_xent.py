"""NT-Xent and SupCon, forward and backward, against lightly and pytorch-metric-learning: seconds
and extra memory.

float32, D = 128, all cores. lightly's NTXentLoss and ours are given the same two views;
pytorch-metric-learning's SupConLoss and ours the same rows and labels (10 classes).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from common import alternate, extra_memory, median, report_extra, write
from lightly.loss import NTXentLoss
from pytorch_metric_learning.losses import SupConLoss
from torch.nn import functional as F

from tellapart.functional import losses

D, TAU = 128, 0.5
NT_XENT = {
    "ours": losses.nt_xent,
    "lightly": lambda a, b, temperature: NTXentLoss(temperature)(a, b),
}
SUP_CON = {"ours": losses.sup_con, "pml": lambda z, y, temperature: SupConLoss(temperature)(z, y)}


def case(kind: str, who: str, n: int) -> Callable[[], None]:
    """Loss and gradient on N pairs (nt_xent) or N rows with labels (sup_con)."""
    draw = torch.Generator().manual_seed(0)
    a, b = (
        F.normalize(torch.randn(n, D, generator=draw), dim=1).requires_grad_() for _ in range(2)
    )
    labels = torch.randint(10, (n,), generator=draw)

    def work() -> None:
        a.grad = b.grad = None
        loss = (
            NT_XENT[who](a, b, temperature=TAU)
            if kind == "nt_xent"
            else SUP_CON[who](a, labels, temperature=TAU)
        )
        loss.backward()

    return work


def compare(
    kind: str, peer: str, n: int, runs: int, alone: bool = False
) -> dict[str, float | None]:
    """Medians, ratio and extra memory of one size."""
    names = ["ours"] if alone else ["ours", peer]
    seconds = alternate({who: case(kind, who, n) for who in names}, runs=runs, warmup=1)
    memory = {who: extra_memory("nt_xent", kind, who, str(n)) for who in names}
    row: dict[str, float | None] = {f"{who} s": round(median(s), 4) for who, s in seconds.items()}
    row |= {f"{who} MB": round(m / 1e6, 1) for who, m in memory.items()}
    if not alone:
        row["times faster"] = round(median(seconds[peer]) / median(seconds["ours"]), 2)
        row["times less memory"] = round(memory[peer] / max(memory["ours"], 1), 1)
    return row


def main() -> None:
    """All sizes, or the memory of one case."""
    if sys.argv[1:2] == ["--memory"]:
        kind, who, n = sys.argv[2:]
        report_extra(case(kind, who, int(n)))
        return
    rows = {
        **{
            f"nt_xent N={n:,}": compare("nt_xent", "lightly", n, r)
            for n, r in ((256, 25), (1024, 9), (8192, 3))
        },
        "nt_xent N=32,768": compare("nt_xent", "lightly", 32_768, 1, alone=True),
        **{
            f"sup_con N={n:,}": compare("sup_con", "pml", n, r)
            for n, r in ((256, 25), (2048, 5), (8192, 2))
        },
    }
    write("nt_xent", {"threads": torch.get_num_threads(), "D": D} | rows)


if __name__ == "__main__":
    main()
