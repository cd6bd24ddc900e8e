"""Claim 14: the features h keep more than the embedding z.

    python studies/heads.py [--minutes M]

Source: Chen et al. 2020 (arXiv 2002.05709), section 4.2: Figure 8 (a non-linear head is better
than a linear one and far better than none, at any output width) and Table 3 (what a classifier
reads from h and from z).
"""

from __future__ import annotations

from harness import UNTESTED, Row, Study, Table, Verdict, verdict_of


def row(head: str, dim: int = 128) -> Row:
    """A row of SimCLR with a projection head; the first of each head is probed."""
    name = f"head {head}" + (f", {dim} wide" if head != "none" else "")
    return Row(name, "simclr", {"epochs": 4, "head": head, "dim": dim}, probe=dim == 128)


ROWS = (
    row("mlp-bn"), row("none"), row("linear"),
    row("mlp-bn", 32), row("mlp-bn", 512), row("linear", 32), row("linear", 512),
)  # fmt: skip


def judge(table: Table) -> Verdict:
    """Parts: h above z with the MLP head; MLP above linear and none; every transform in h."""
    mlp, none, linear = (r.name for r in ROWS[:3])
    if not table.complete(mlp, none, linear):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    h, z = table.mean(mlp), table.mean(mlp, "embedding")
    kept = {
        name: (table.mean(mlp, f"h: {name}"), table.mean(mlp, f"z: {name}"))
        for name in sorted(n[3:] for n in table.cells[mlp][0]["scores"] if n.startswith("h: "))
    }
    parts = {
        f"k-NN of h {100 * h:.1f} % above z {100 * z:.1f} %": h > z,
        "an MLP head is better than none": table.better(mlp, none),
        "an MLP head is better than a linear one": table.better(mlp, linear),
        "a classifier names each transform better from h than from z ("
        + ", ".join(f"{n} {100 * a:.0f} against {100 * b:.0f}" for n, (a, b) in kept.items())
        + " %)": all(a > b for a, b in kept.values()),
    }
    return verdict_of(parts)


STUDY = Study(
    "heads",
    "Projection heads, and what they discard (SimCLR, section 4.2)",
    ROWS,
    judge,
    decisive=3,
    note="With head none the embedding is the features, scaled to unit length.",
)

if __name__ == "__main__":
    STUDY.main()
