"""Claim 12: a dictionary as a queue with a slowly moving encoder beats a bank and a small batch.

    python studies/dictionaries.py [--minutes M]

Source: He et al. 2020 (arXiv 1911.05722), Figure 3 (K) and the table of m in section 4.1.
"""

from __future__ import annotations

from typing import Any

from harness import UNTESTED, Row, Study, Table, Verdict, verdict_of

SHARED: dict[str, Any] = {"epochs": 3}


def moco(name: str, **objective: Any) -> Row:
    """A row of MoCo with options of the objective over the preset's (K 4,096, m 0.99)."""
    return Row(name, "moco", SHARED | {"objective": objective})


ROWS = (
    moco("MoCo, K 4096, m 0.99"),
    moco("K 64", queue=64),
    moco("m 0", momentum=0.0),
    Row(
        "bank, NCE m 4096", "instdisc",
        SHARED | {"head": "mlp-bn", "objective": {"bank_momentum": 0.5}},
    ),
    Row("end to end, batch 128", "simclr", SHARED | {"lr": 0.03}),
    moco("m 0.999", momentum=0.999),
    moco("m 0.9", momentum=0.9),
    moco("m 0.9999", momentum=0.9999),
    moco("K 256", queue=256),
    moco("K 1024", queue=1024),
    moco("K 16384", queue=16_384),
    Row("no shuffle, split BatchNorm", "moco", SHARED | {"objective": {"shuffle": False}}),
    Row(
        "no shuffle, one BatchNorm", "moco",
        SHARED | {"bn": "local", "objective": {"shuffle": False}},
    ),
)  # fmt: skip


def judge(table: Table) -> Verdict:
    """Holds if all three parts do, each by more than the interval of its difference."""
    decisive = [row.name for row in ROWS[:5]]
    if not table.complete(*decisive):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    full, short, frozen, bank, small = decisive
    parts = {
        "a slow key encoder beats none (m 0.99 over m 0)": table.better(full, frozen),
        "a long queue beats a short one (K 4096 over K 64)": table.better(full, short),
        "MoCo beats the bank": table.better(full, bank),
        "MoCo beats a batch of 128 end to end": table.better(full, small),
    }
    return verdict_of(parts)


STUDY = Study(
    "dictionaries",
    "End to end, memory bank, queue (MoCo, Figure 3 and section 4.1)",
    ROWS,
    judge,
    decisive=5,
    note="Every row sees the same 150,000 views (3 epochs of 50,000 scenes) with the same encoder.",
)

if __name__ == "__main__":
    STUDY.main()
