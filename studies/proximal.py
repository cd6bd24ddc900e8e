"""Claim 5: the proximal term steadies the training of instance discrimination.

    python studies/proximal.py [--minutes M]

Source: Wu et al. 2018 (arXiv 1805.01978), section 3.3 and Figure 3.
"""

from __future__ import annotations

import statistics

from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict


def row(weight: float, momentum: float) -> Row:
    """A row with proximal weight lambda and bank momentum."""
    options = {"epochs": 3, "objective": {"proximal": weight, "bank_momentum": momentum}}
    return Row(f"lambda {weight:g}, bank momentum {momentum:g}", "instdisc", options)


ROWS = tuple(
    row(weight, momentum)
    for weights in ((0.0, 10.0), (1.0, 30.0))
    for momentum in (0.0, 0.5)
    for weight in weights
)


def roughness(table: Table, name: str) -> float:
    """Mean squared second difference of the logged losses over seeds; 0 for a line."""
    found = []
    for cell in table.cells[name]:
        loss = cell["losses"]
        found.append(
            statistics.mean(
                (a - 2 * b + c) ** 2 for a, b, c in zip(loss, loss[1:], loss[2:], strict=False)
            )
        )
    return statistics.mean(found)


def judge(table: Table) -> Verdict:
    """Holds if lambda 10 makes the loss smoother at both momenta and loses no accuracy."""
    plain, ten, half, half_ten = (ROWS[i].name for i in range(4))
    if not table.complete(plain, ten, half, half_ten):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    smoother = [
        roughness(table, b) < roughness(table, a) for a, b in ((plain, ten), (half, half_ten))
    ]
    worse = [table.better(a, b) for a, b in ((plain, ten), (half, half_ten))]
    sentence = (
        f"roughness of the loss {roughness(table, plain):.4f} to {roughness(table, ten):.4f} "
        f"(momentum 0) and {roughness(table, half):.4f} to {roughness(table, half_ten):.4f} (0.5)"
    )
    if all(smoother) and not any(worse):
        return Verdict(HOLDS, sentence)
    return Verdict(PARTLY if any(smoother) else FAILS, sentence)


STUDY = Study("proximal", "The proximal term (InstDisc, section 3.3)", ROWS, judge, decisive=4)

if __name__ == "__main__":
    STUDY.main()
