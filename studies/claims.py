"""Write docs/claims.md from the committed results; `--check` fails where it is out of date.

python studies/claims.py [--check]
"""

from __future__ import annotations

import json
import statistics
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ledger
from harness import FAILS, HOLDS, PARTLY, UNTESTED, Study, Verdict, commit, read_trainings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "claims.md"
STUDIES = {study.name: study for study in ledger.STUDIES}


@dataclass(frozen=True)
class Claim:
    """One claim of the literature.

    Attributes:
        number: of the list that the ledger follows; "s" for what the survey tells.
        text: the claim in a sentence.
        source: paper, table or equation.
        command: what makes our numbers; "" where nothing has been run.
        seeds: how many, in words.
        result: gives the verdict and the sentence of the table.
    """

    number: str
    text: str
    source: str
    command: str
    seeds: str
    result: Callable[[], Verdict]


def read(name: str) -> Any:
    """A committed result."""
    return json.loads((ROOT / name).read_text())


def study(name: str) -> Callable[[], Verdict]:
    """The verdict of a study of the ledger."""
    return lambda: STUDIES[name].judge(STUDIES[name].table())


def not_run(why: str) -> Callable[[], Verdict]:
    """A claim without numbers of ours."""
    return lambda: Verdict(UNTESTED, why)


def _nce_gradient() -> Verdict:
    found = read("studies/exact_claims.json")["nce_gradient"]
    slopes = {name: found[name]["slope, k from 32"] for name in ("uniform", "unigram")}
    holds = all(abs(mean + 1) < 0.2 for mean, _ in slopes.values())
    said = ", ".join(f"{m} ± {s} with {name} noise" for name, (m, s) in slopes.items())
    return Verdict(HOLDS if holds else PARTLY, f"log-log slope of the error against k: {said}")


def _partition() -> Verdict:
    found = read("studies/exact_claims.json")["partition_function"]
    errors = found["relative error of Z, mean over seeds"]
    one, many = errors["m = 1, 1 batches of 128"], errors["m = 4096, 1 batches of 128"]
    mean, std = found["Z / S over exp(1 / (2 D tau^2))"]
    return Verdict(
        HOLDS if many < 0.05 else FAILS,
        f"one batch of 128 gives Z to {100 * one:.1f} % with m = 1 and to {100 * many:.2f} % with "
        f"m = 4,096; Z / S is {mean} ± {std} times exp(1 / (2 D tau²))",
    )


def _own_feature() -> Verdict:
    found = read("studies/exact_claims.json")["own_feature_as_weight"]
    zero = found["gradient norm of the positive term"]
    ablation = study("ye_ablations")()
    return Verdict(
        ablation.word if ablation.word != UNTESTED else PARTLY,
        f"gradient of the positive with f_i for v_i: {zero:.0e} (zero); {ablation.sentence}",
    )


def _spring() -> Verdict:
    found = read("studies/exact_claims.json")["spring"]
    linear = all(
        abs(d + f) < 1e-6 for d, f in zip(found["distance"], found["similar"], strict=True)
    )
    zero = all(f == 0 for d, f in zip(found["distance"], found["dissimilar"], strict=True) if d > 1)
    return Verdict(
        HOLDS if linear and zero else FAILS,
        "the force is minus the distance for similar pairs and zero beyond the margin; the map of "
        "the digits 4 and 9 separates them (docs/objectives/margin.md)",
    )


def _density_ratio() -> Verdict:
    found = read("studies/exact_claims.json")["density_ratio"]
    last = found["estimate"][-1]
    rising = found["estimate"] == sorted(found["estimate"])
    below = all(e < b for e, b in zip(found["estimate"], found["ln N"], strict=True))
    share = found["share of pairs with r > 1, where the step of eq. 25 is false"]
    return Verdict(
        HOLDS if rising and below and last < found["I"] else FAILS,
        f"with the exact critic {found['estimate'][0]} nats at N = 16 and {last} at 4,096 of "
        f"I = {found['I']:g}; eq. 25's step is false for {100 * share:.1f} % of the pairs",
    )


def _supcon() -> Verdict:
    forms = read("studies/exact_claims.json")["supcon_forms"]
    trained = study("positives")()
    return Verdict(
        trained.word if trained.word != UNTESTED else PARTLY,
        f"L_out - L_in is at least {forms['smallest L_out - L_in']} with five positives and "
        f"{forms['L_out - L_in, one positive']:.0e} with one; {trained.sentence}",
    )


def _information() -> Verdict:
    found = read("studies/mutual_information.json")
    nce, vub, club = (found[n]["gaussian"]["6"]["mean"] for n in ("infonce", "vub", "club"))
    return Verdict(
        HOLDS if nce < 6 < club else FAILS,
        f"at I = 6: InfoNCE {nce:.2f} (below), CLUB {club:.2f} (above); but CLUB is not the "
        f"tighter upper bound: the variational one is {vub:.2f}",
    )


def _staleness() -> Verdict:
    reached: dict[str, list[float]] = {}
    for method in ("simclr", "spread", "moco", "instdisc"):
        for seed in read(f"recipes/scenes_{method}.json")["seeds"]:
            best = [
                p["epoch"]
                for p in seed["curve_on_validation"]
                if max(p["features"], p["embedding"]) >= 0.6
            ]
            reached.setdefault(method, []).append(min(best, default=float("inf")))
    mean = {method: statistics.mean(epochs) for method, epochs in reached.items()}
    fresh, stale = max(mean["simclr"], mean["spread"]), mean["instdisc"]
    said = ", ".join(f"{method} {epochs:.1f}" for method, epochs in mean.items())
    return Verdict(
        HOLDS if fresh < stale else FAILS,
        f"epochs to 60 % k-NN on held-out training items (looked at every 3 epochs): {said}",
    )


def _cpc_steps() -> Verdict:
    rows = read("studies/cpc.json")["rows"]
    few, many = 100 * rows["2 steps"]["phones"][0], 100 * rows["8 steps"]["phones"][0]
    return Verdict(
        HOLDS if many > few + 5 else FAILS,
        f"phones {few:.1f} % predicting 2 steps ahead, {many:.1f} % predicting 8 (one seed)",
    )


def _simcse() -> Verdict:
    return Verdict(
        UNTESTED,
        "from random weights no row of the dropout sweep differs (docs/experiments.md); it needs "
        "weights trained by masked language modelling alone, which are not made yet",
    )


CLAIMS = (
    Claim(
        "1, 4",
        "Accuracy grows with the number of noise samples m (m = 1 fails), and the non-parametric "
        "softmax is far better than the parametric one.",
        "Wu et al. 2018, Table 1",
        "python studies/instdisc_table1.py",
        "3",
        study("instdisc_table1"),
    ),
    Claim(
        "2",
        "The NCE gradient approaches the maximum-likelihood gradient as k grows.",
        "Mnih & Teh 2012; Gutmann & Hyvärinen 2010",
        "python studies/exact_claims.py",
        "5",
        _nce_gradient,
    ),
    Claim(
        "3",
        "A Monte-Carlo estimate of Z from a few batches suffices.",
        "Wu et al. 2018, eq. 6",
        "python studies/exact_claims.py",
        "5",
        _partition,
    ),
    Claim(
        "5",
        "The proximal term steadies training.",
        "Wu et al. 2018, section 3.3",
        "python studies/proximal.py",
        "3",
        study("proximal"),
    ),
    Claim(
        "6",
        "Replacing v_i by f_i gives no gradient; augmentation and spreading decide (37.4 % without "
        "augmentation, 83.6 % with it).",
        "Ye et al. 2019, eq. 2 and Table 5",
        "python studies/ye_ablations.py",
        "3",
        _own_feature,
    ),
    Claim(
        "7, 15",
        "A larger batch and a longer training are better.",
        "Chen et al. 2020, Figure 9; Ye et al. 2019",
        "python studies/batch_size.py",
        "3",
        study("batch_size"),
    ),
    Claim(
        "8",
        "A bank whose rows are refreshed once an epoch learns slowly.",
        "Ye et al. 2019, section 1",
        "python recipes/scenes_instdisc.py 0 1 2 (and moco, simclr, spread)",
        "3",
        _staleness,
    ),
    Claim(
        "9",
        "The contrastive loss is a system of springs.",
        "Hadsell et al. 2006, section 2",
        "python studies/exact_claims.py; python studies/digit_map.py",
        "exact; 1",
        _spring,
    ),
    Claim(
        "10",
        "Hardest negatives from the start collapse; semi-hard ones do not.",
        "Schroff et al. 2015, section 3.2",
        "python studies/mining.py",
        "3",
        study("mining"),
    ),
    Claim(
        "11",
        "The optimum of InfoNCE is the density ratio; its bound tightens with N up to ln N.",
        "van den Oord et al. 2018, section 2.3",
        "python studies/exact_claims.py",
        "5",
        _density_ratio,
    ),
    Claim(
        "12",
        "A queue with a slow key encoder beats a bank and a small batch; m = 0.999 far over 0.",
        "He et al. 2020, Figure 3 and section 4.1",
        "python studies/dictionaries.py",
        "3",
        study("dictionaries"),
    ),
    Claim(
        "13",
        "Crops with colour changes are the best pair of augmentations.",
        "Chen et al. 2020, Figure 5",
        "python studies/composition.py",
        "3",
        study("composition"),
    ),
    Claim(
        "14",
        "Features h keep more than the embedding z.",
        "Chen et al. 2020, Figure 8 and Table 3",
        "python studies/heads.py",
        "3",
        study("heads"),
    ),
    Claim(
        "16",
        "With 1 % of the labels a larger network gains most, and distils into a small one.",
        "Chen et al. 2020 (SimCLR v2), Figures 1 and 5",
        "",
        "",
        not_run("not run yet over widths; one width is in docs/results.md"),
    ),
    Claim(
        "17",
        "More positives help; L_out is better than L_in.",
        "Khosla et al. 2020, Tables 5 and 6",
        "python studies/positives.py; python studies/exact_claims.py",
        "3; 5",
        _supcon,
    ),
    Claim(
        "18",
        "CLUB is an upper bound and InfoNCE a lower one.",
        "Cheng et al. 2020, Figure 1",
        "python studies/mutual_information.py",
        "1",
        _information,
    ),
    Claim(
        "19",
        "Dropout is the best augmentation of sentences; one mask for both passes fails.",
        "Gao et al. 2021, Table 3",
        "python studies/simcse.py",
        "1",
        _simcse,
    ),
    Claim(
        "20",
        "Other distances could replace the cosine.",
        "the survey",
        "python studies/distances.py",
        "3",
        study("distances"),
    ),
    Claim(
        "s",
        "Predicting further ahead teaches more, up to a point.",
        "van den Oord et al. 2018, Table 2",
        "python studies/cpc.py phones 300",
        "1",
        _cpc_steps,
    ),
    Claim(
        "s",
        "MoCo v2: an MLP head, stronger augmentation and a cosine schedule each help.",
        "Chen et al. 2020 (arXiv 2003.04297), Table 1",
        "python studies/moco_v2.py",
        "3",
        study("moco_v2"),
    ),
)


def page() -> str:
    """The text of docs/claims.md."""
    lines = [
        "# Claims",
        "",
        "Each claim of this line of research that a program can check, with our numbers.",
        "Trainings are of `scenes:fashion-mnist` with `small-resnet` of width 16 unless a row says",
        "otherwise: 32-pixel scenes, minutes of one thread. A verdict is about that scale.",
        "`python studies/claims.py` writes this page from the committed results, and a test "
        "compares",
        "them.",
        "",
        "| # | claim | source | verdict | our result | seeds | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        verdict = claim.result()
        command = f"`{claim.command}`" if claim.command else ""
        lines.append(
            f"| {claim.number} | {claim.text} | {claim.source} | **{verdict.word}** | "
            f"{verdict.sentence} | {claim.seeds} | {command} |"
        )
    for one in STUDIES.values():
        if any(one.table().cells.values()):
            lines += ["", *_study(one)]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    """The text in lines of 100 columns."""
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def _study(one: Study) -> list[str]:
    known = read_trainings()
    trained = [e for row in one.table().cells.values() for e in row]
    commits = sorted({e["commit"] for e in trained})
    hours = sum(e["cpu_seconds"] for e in trained) / 3600
    verdict = one.judge(one.table())
    about = (
        f"`python studies/{one.name}.py`; {len(trained)} trainings, {hours:.1f} hours of one "
        f"thread, commit {', '.join(commits)}; {len(known)} trainings are in "
        f"`studies/trainings.jsonl`. {one.note} "
        "Accuracy on the test part in %, mean ± std over seeds."
    )
    return [
        f"## {one.title}",
        "",
        *_wrapped(about),
        "",
        one.table().markdown(),
        "",
        *_wrapped(f"**{verdict.word}**: {verdict.sentence}"),
    ]


def main() -> int:
    """Write the page, or with `--check` compare it; 1 where it is out of date."""
    if "--check" in sys.argv:
        if PAGE.read_text() == page():
            return 0
        print(f"{PAGE.relative_to(ROOT)} is out of date: python studies/claims.py (at {commit()})")
        return 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
