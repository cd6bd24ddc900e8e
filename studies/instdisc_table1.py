"""Claims 1 and 4: Table 1 of instance discrimination at a length at which m = 1 can fail.

    python studies/instdisc_table1.py [--minutes M]

Source: Wu et al. 2018 (arXiv 1805.01978), Table 1, CIFAR-10 (linear SVM / k-NN): parametric
60.3 / 63.0, non-parametric 75.4 / 80.8, NCE with m = 1, 10, 512, 4,096: 44.3 / 42.5, 60.2 / 63.4,
64.3 / 78.4, 70.2 / 80.4.
"""

from __future__ import annotations

from typing import Any

from harness import UNTESTED, Row, Study, Table, Verdict, verdict_of

EPOCHS = 12


def nce(m: int) -> Row:
    """Noise-contrastive estimation with m noise samples; small m is drawn per instance."""
    noise = "shared" if m > 64 else "instance"
    objective: dict[str, Any] = {"loss": "nce", "negatives": m, "noise": noise}
    return Row(f"NCE, m = {m:,}", "instdisc", {"epochs": EPOCHS, "objective": objective})


ROWS = (
    nce(1), nce(4096), Row("parametric softmax", "exemplar", {"epochs": EPOCHS}),
    Row("non-parametric softmax", "instdisc", {"epochs": EPOCHS, "objective": {"loss": "softmax"}}),
    nce(64), nce(10), nce(512),
)  # fmt: skip


def judge(table: Table) -> Verdict:
    """Parts: m = 4,096 beats m = 1; the non-parametric softmax beats the parametric one."""
    one, many, parametric, full = (r.name for r in ROWS[:4])
    if not table.complete(one, many, parametric, full):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    parts = {
        "more noise is better (m = 4,096 over 1)": table.better(many, one),
        "non-parametric over parametric": table.better(full, parametric),
        "m = 4,096 is within 2 points of the full softmax": abs(table.difference(many, full)[0])
        < 2,
    }
    return verdict_of(parts)


STUDY = Study(
    "instdisc_table1",
    "Parametric, non-parametric, and NCE with m noise samples (InstDisc, Table 1)",
    ROWS,
    judge,
    decisive=4,
    metric="embedding",
)

if __name__ == "__main__":
    STUDY.main()
