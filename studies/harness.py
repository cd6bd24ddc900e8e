"""The harness of the ledger: a study is a list of settings, a metric, and a rule that judges them.

A row of a study is a training (`Row`). Trainings are cached in `studies/trainings.jsonl` by a hash
of their settings and of the data, so that studies share equal trainings, and a killed study goes on
where it stopped: a half-trained run resumes from its last checkpoint in `runs/ledger/`.

The test part is scored once per training. Every third training item is a neighbour; accuracy is
k-NN with k = 200 on features and embedding, and logistic regression on the features.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRAININGS = HERE / "trainings.jsonl"
RUNS = HERE.parent / "runs" / "ledger"
DATA = "scenes:fashion-mnist"  # the common ground, encoder small-resnet of width 16
VALIDATION = 10_000  # training items never trained on, for choices; the test part is for the table
NEIGHBOURS = 3  # every third training item is a neighbour
FREE = ("cache", "cache_limit", "device", "tensorboard", "threads", "log_every", "save_every")

HOLDS, PARTLY, FAILS, UNTESTED = (
    "holds",
    "holds in part",
    "does not hold at our scale",
    "not tested",
)


@dataclass(frozen=True)
class Row:
    """One training of a study.

    Attributes:
        name: the label of the row in the table.
        method: as `tellapart train METHOD`.
        options: settings over those of the preset, as keyword arguments of `tellapart.train`.
        preset: name of the preset; None: the one of the method and the data.
        data: the source, as `tellapart train --data`.
        probe: also score what a classifier reads from h and z (`transform_probe`).
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    data: str = DATA
    probe: bool = False


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim: one of `HOLDS`, `PARTLY`, `FAILS`, `UNTESTED`, and a sentence."""

    word: str
    sentence: str


def verdict_of(parts: Mapping[str, bool]) -> Verdict:
    """The verdict on a claim of several parts: it holds if all do, in part if some do.

    Args:
        parts: each part in words, and whether it is shown.
    """
    word = HOLDS if all(parts.values()) else PARTLY if any(parts.values()) else FAILS
    return Verdict(word, "; ".join(f"{p}: {'yes' if y else 'not shown'}" for p, y in parts.items()))


@dataclass(frozen=True)
class Study:
    """Rows, seeds, and the rule that judges their table.

    Attributes:
        name: of the module and the page.
        title: heading of the page.
        rows: in the order in which they are trained; what is decisive comes first.
        judge: from the table to the verdict; written before the first training.
        seeds: how many seeds each row gets, 0 to seeds - 1.
        metric: the column that the rule looks at.
        decisive: how many of the first rows the rule needs; these get
            all their seeds before any other row of the ledger is trained.
        note: what the page says beside the table (the rule in words, what the scale cannot show).
    """

    name: str
    title: str
    rows: Sequence[Row]
    judge: Callable[[Table], Verdict]
    seeds: int = 3
    metric: str = "features"
    decisive: int = 0
    note: str = ""

    def table(self) -> Table:
        """The scores that the cache has for the rows."""
        known = read_trainings()
        cells: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            keys = [key_of(row, seed) for seed in range(self.seeds)]
            cells[row.name] = [known[key] for key in keys if key in known]
        return Table(cells, self.metric, self.seeds)

    def missing(self, *, decisive: bool) -> list[tuple[Row, int]]:
        """Trainings that the cache lacks: every row with seed 0 first, then with seed 1, ...

        Args:
            decisive: those of the rows that the rule needs, or of the others.
        """
        known = read_trainings()
        part = self.rows[: self.decisive] if decisive else self.rows[self.decisive :]
        return [
            (row, seed)
            for seed in range(self.seeds)
            for row in part
            if key_of(row, seed) not in known
        ]

    def main(self) -> None:
        """Train what is missing, then print the table and the verdict."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument(
            "--minutes", type=float, help="stop before a training that begins later"
        )
        parser.add_argument("--table", action="store_true", help="train nothing")
        given = parser.parse_args()
        if not given.table:
            run([self], given.minutes)
        print(self.table())
        verdict = self.judge(self.table())
        print(f"{verdict.word}: {verdict.sentence}")


@dataclass(frozen=True)
class Table:
    """Scores by row: a list with one dictionary of metrics for each seed that has been trained."""

    cells: Mapping[str, Sequence[Mapping[str, Any]]]
    metric: str
    seeds: int

    def values(self, row: str, metric: str | None = None) -> list[float]:
        """The scores of a row, in seeds' order, as shares."""
        return [float(cell["scores"][metric or self.metric]) for cell in self.cells[row]]

    def mean(self, row: str, metric: str | None = None) -> float:
        """The mean over seeds."""
        return statistics.mean(self.values(row, metric))

    def complete(self, *rows: str) -> bool:
        """Whether each of these rows (all, where none is named) has a score of every seed."""
        return all(len(self.cells[row]) >= self.seeds for row in rows or self.cells)

    def difference(self, a: str, b: str) -> tuple[float, float, float]:
        """Mean of row a minus row b in points, with its 95 % Welch interval.

        With one seed a side the interval is plus or minus 5 points: a single run says no more.
        """
        from scipy.stats import ttest_ind

        x, y = self.values(a), self.values(b)
        mean = 100 * (statistics.mean(x) - statistics.mean(y))
        if min(len(x), len(y)) < 2:
            return mean, mean - 5, mean + 5
        interval = ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
        return mean, 100 * float(interval.low), 100 * float(interval.high)

    def better(self, a: str, b: str) -> bool:
        """Whether row a is above row b by more than the interval of their difference."""
        return self.difference(a, b)[1] > 0

    def markdown(self) -> str:
        """The table of the page: mean ± std in % for each metric, and how many seeds."""
        metrics = [m for m in ("features", "embedding", "logistic") if any(self.cells.values())]
        lines = [
            "| row | k-NN features | k-NN embedding | logistic regression | seeds |",
            "|---|---|---|---|---|",
        ]
        for row, cells in self.cells.items():
            shown = [percent(self.values(row, m)) if cells else "not run" for m in metrics]
            lines.append(f"| {row} | {' | '.join(shown)} | {len(cells)} |")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.markdown()


def percent(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds in %, the mean alone for one seed."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def settings_of(row: Row, seed: int) -> dict[str, Any]:
    """The settings of a training that differ from their defaults, flat and plain.

    A setting that a later version adds, with a default that changes nothing, keeps the keys of
    trainings as they are.
    """
    from tellapart.objectives.own import register
    from tellapart.runtime import plugins
    from tellapart.training.resolve import resolve

    if plugins.is_name(row.method):  # an objective of a study: module:class
        register(row.method)
    options = dict(row.options) | {"seed": seed, "validation": VALIDATION}
    config: Any = resolve(row.method, row.data, row.preset, None, options)
    default = type(config)(objective=type(config.objective)())
    given, usual = (json.loads(json.dumps(c.to_dict())) for c in (config, default))
    return _changed(given, usual)


def _changed(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What differs in nested settings."""
    found = {}
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(usual.get(name), dict):
            value = _changed(value, usual[name])
            if not value:
                continue
        elif name in usual and value == usual[name]:
            continue
        found[name] = value
    return found


def key_of(row: Row, seed: int) -> str:
    """A hash of what decides a training's result: method, settings, data."""
    settings = {k: v for k, v in settings_of(row, seed).items() if k not in FREE}
    text = json.dumps([row.method, row.data, settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def read_trainings() -> dict[str, dict[str, Any]]:
    """Finished trainings by key; a last line that a kill cut short is left out."""
    found = {}
    if TRAININGS.exists():
        for line in TRAININGS.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found[entry["key"]] = entry
    return found


def run(studies: Sequence[Study], minutes: float | None = None) -> None:
    """Train what the studies lack, in their order, until it is done or the minutes are over.

    The rows that rules need come first, of all studies.
    """
    began = time.monotonic()
    for decisive, study in itertools.product((True, False), studies):
        for row, seed in study.missing(decisive=decisive):
            if minutes and time.monotonic() - began > 60 * minutes:
                return
            if key_of(row, seed) not in read_trainings():
                entry = train(row, seed)
                with open(TRAININGS, "a") as file:
                    file.write(json.dumps(entry) + "\n")
                print(study.name, row.name, seed, entry["scores"], flush=True)


def train(row: Row, seed: int) -> dict[str, Any]:
    """Train one row, score it, and return the line of the cache."""
    import torch

    import tellapart as ta

    key = key_of(row, seed)
    folder = RUNS / key
    options = {
        "seed": seed,
        "validation": VALIDATION,
        "threads": 1,
        "log_every": 100,
        "save_every": 400,
    }
    began = time.process_time()
    ta.train(
        row.method, data=row.data, out=folder, preset=row.preset, resume=folder.exists(),
        **{**row.options, **options},
    )  # fmt: skip
    seconds = time.process_time() - began
    loaded = ta.load(folder)
    metrics = loaded.run.metrics()
    return {
        "key": key, "method": row.method, "data": row.data, "options": plain_options(row.options),
        "seed": seed, "steps": loaded.run.manifest["step"], "cpu_seconds": round(seconds, 1),
        "losses": [round(line["loss"], 4) for line in metrics],
        "chance": metrics[-1].get("chance") if metrics else None,
        "scores": score(loaded.encoder, ta.open_source(row.data), probe=row.probe),
        "commit": commit(),
        "hardware": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": {"tellapart": ta.__version__, "torch": torch.__version__},
    }  # fmt: skip


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(options), default=dataclasses.asdict))
    return plain


def score(encoder: Any, source: Any, *, probe: bool = False) -> dict[str, float]:
    """Accuracy of the test part: k-NN (k = 200) on features and embedding, logistic regression.

    Args:
        encoder: the trained one.
        source: with a training and a test part.
        probe: also how often a classifier names the transform of an image from h and from z.
    """
    import numpy as np

    from tellapart.embeddings import embed_both
    from tellapart.evaluation import knn
    from tellapart.evaluation.linear import linear_labels
    from tellapart.evaluation.transform_probe import what_is_discarded

    train_part, test_part = source.split("train"), source.split("test")
    near = train_part.subset(np.arange(0, len(train_part), NEIGHBOURS))
    outputs = ("features", "embedding")
    a, b = embed_both(encoder, near, outputs), embed_both(encoder, test_part, outputs)
    found = {o: round(knn(a[o], b[o], k=200)["knn@200"], 4) for o in outputs}
    predicted = linear_labels(a["features"], b["features"].vectors)[0]
    found["logistic"] = round(float((predicted == b["features"].labels).mean()), 4)
    if probe:
        rows = what_is_discarded(encoder, train_part, test_part)
        for letter, row in (("h", "features (h)"), ("z", "embedding (z)")):
            found |= {f"{letter}: {name}": round(share, 4) for name, share in rows[row].items()}
    return found


def commit() -> str:
    """The commit of this checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    return done.stdout.strip()
