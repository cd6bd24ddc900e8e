"""Claims 7 and 15: more negatives per batch and longer training help, by which rule for the rate.

    python studies/batch_size.py [--minutes M]

Source: Chen et al. 2020 (arXiv 2002.05709), Figure 9; Ye et al. 2019 (arXiv 1904.03436), section 4.
"""

from __future__ import annotations

from typing import Any

from harness import UNTESTED, Row, Study, Table, Verdict, verdict_of

BASE = {"simclr": (0.1, 128), "spread": (0.01, 64)}  # rate and batch of the presets


def row(method: str, batch: int, rule: str = "linear", epochs: float = 2, **more: Any) -> Row:
    """A row whose learning rate follows the batch size by the linear or square-root rule."""
    rate, at = BASE[method]
    factor = batch / at if rule == "linear" else (batch / at) ** 0.5
    name = f"{method}, batch {batch}, {rule} rule, {epochs:g} epochs"
    return Row(name, method, {"epochs": epochs, "batch_size": batch, "lr": rate * factor, **more})


ROWS = (
    row("simclr", 64), row("simclr", 512), row("simclr", 128), row("simclr", 128, epochs=8),
    row("simclr", 512, "square-root"), row("spread", 16), row("spread", 64), row("spread", 256),
    row("simclr", 256, "square-root"), row("simclr", 256),
    row("simclr", 32), row("simclr", 1024, "square-root"), row("simclr", 1024),
    row("simclr", 128, epochs=4), row("simclr", 512, epochs=8), row("spread", 1024, "square-root"),
    row("simclr", 16),
)  # fmt: skip


def judge(table: Table) -> Verdict:
    """Parts: batch 512 over 64 at equal images (better rule); 8 epochs over 2 at batch 128."""
    small, large, base, longer = (r.name for r in ROWS[:4])
    root = ROWS[4].name
    if not table.complete(small, large, base, longer, root):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    best = max(large, root, key=table.mean)
    parts = {
        "a larger batch is better at equal images (512 over 64)": table.better(best, small),
        "longer training is better (8 epochs over 2)": table.better(longer, base),
    }
    return verdict_of(parts)


STUDY = Study(
    "batch_size",
    "Batch size and length of training (SimCLR, Figure 9; Ye et al.)",
    ROWS,
    judge,
    decisive=5,
    note="Rows of equal epochs see the same number of images; a larger batch takes fewer steps.",
)

if __name__ == "__main__":
    STUDY.main()
