"""The survey's claim on MoCo v2: MLP head, stronger augmentation and cosine schedule each help.

    python studies/moco_v2.py [--minutes M]

Source: Chen et al. 2020 (arXiv 2003.04297), Table 1: 60.6 % (v1); MLP 62.9, augmentation 63.4, both
64.9, all with the cosine schedule 65.6 % (ImageNet, linear).
"""

from __future__ import annotations

from typing import Any

from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict

V1: dict[str, Any] = {"epochs": 6, "head": "linear", "blur": 0.0, "schedule": "step"}
MLP, BLUR, COSINE = {"head": "mlp-bn"}, {"blur": 0.5}, {"schedule": "cosine"}
ROWS = tuple(
    Row(name, "moco", V1 | more)
    for name, more in (
        ("v1", {}),
        ("v2: MLP, blur, cosine", MLP | BLUR | COSINE),
        ("MLP", MLP),
        ("blur", BLUR),
        ("cosine", COSINE),
        ("MLP, blur", MLP | BLUR),
    )
)


def judge(table: Table) -> Verdict:
    """Holds if v2 beats v1 and each part alone does not hurt; in part if v2 beats v1."""
    names = [r.name for r in ROWS[:5]]
    if not table.complete(*names):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    v1, v2, *parts = names
    gains = {name: table.difference(name, v1)[0] for name in (v2, *parts)}
    shown = ", ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
    helps = table.better(v2, v1)
    word = HOLDS if helps and min(gains.values()) > 0 else PARTLY if helps else FAILS
    return Verdict(word, f"points over v1: {shown}")


STUDY = Study("moco_v2", "MoCo v2's ablation", ROWS, judge, metric="logistic", decisive=5)

if __name__ == "__main__":
    STUDY.main()
