"""Base of the recipes on folders of real pictures: does adapting a pretrained network pay?

The pictures are split into a training and a test part by the hash of their near-copy groups, so
that near copies are on one side. Adapting sees the training part, without labels. Every row is
scored alike on the test part:

- k-NN accuracy (k = 5) with the labels of the training part;
- accuracy from 1, 4 and 16 labels per class, over 5 seeded draws; classes with fewer training
  pictures than that are left out, and the number of those that remain is given;
- R@1: the nearest other picture of the test part is of the same theme (the innermost folder).

A difference to the starting weights has a 95 % bootstrap interval over groups of near copies, of
scores averaged over the training seeds. Results are written after each row, so that a run that was
stopped keeps what it measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tellapart import __version__, open_source
from tellapart.curation import duplicates
from tellapart.data import modality_of
from tellapart.embeddings import Embeddings, embed
from tellapart.encoders import pretrained
from tellapart.evaluation import few_label
from tellapart.evaluation.baselines import CentredPixels
from tellapart.evaluation.bootstrap import compare, resamples_of_groups
from tellapart.evaluation.knn import knn_labels, leave_one_out_labels
from tellapart.functional import top_k
from tellapart.training import presets
from tellapart.training.hardware import hardware
from tellapart.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
COMMIT = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
).stdout.strip()
NETWORK = "timm/tf_efficientnet_lite0"
METHODS = ("simclr", "moco", "instdisc", "spread")
SCRATCH_SIZE = 64  # side in pixels of the network from random weights
NEAR = 20  # pictures that each one is compared with
TEST_SHARE = 0.4
BUDGETS = (1, 4, 16)
K = 5
START = "starting weights"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """A folder of pictures and the settings of its rows.

    Attributes:
        name: name of the file of results.
        data: the folder.
        image_size: side of a view of the pretrained network, in pixels.
        epochs: of adapting.
        scratch_epochs: of the network from random weights.
    """

    name: str
    data: str
    image_size: int = 96
    epochs: float = 3.0
    scratch_epochs: float = 60.0

    def main(self) -> None:
        """Measure the rows and seeds that the command line names, and write NAME.json."""
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("weights", help="file written by scripts/prepare_lite0.py")
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        parser.add_argument("--methods", nargs="+", default=list(METHODS[:3]))
        given = parser.parse_args()
        started = open_source(self.data, image_size=self.image_size)
        themes = open_source(self.data, image_size=self.image_size, label_level="last")
        task = Task.of(started, themes)
        results = Results(HERE / f"{self.name}.json", self, given, task)
        pixels = CentredPixels(task.train)
        results.add("pixels", 0, task.scores(pixels.embed))
        start = self.start(given.weights)
        results.add(START, 0, task.scores(lambda part: embed(start, part)))
        small = Task.of(*(open_source(self.data, image_size=SCRATCH_SIZE, label_level=level)
                          for level in ("top", "last")), groups=task.groups)  # fmt: skip
        for seed in given.seeds:
            for method in given.methods:
                config = replace(
                    presets.named(f"{method}_adapt"), init=given.weights, encoder=NETWORK,
                    image_size=self.image_size, epochs=self.epochs, seed=seed, threads=1,
                )  # fmt: skip
                trainer = self.trained(method, config, task)
                results.add(
                    f"adapted by {method}", seed,
                    task.scores(lambda part, t=trainer: embed(t.result.eval(), part)), trainer,
                )  # fmt: skip
            config = replace(
                presets.named("simclr_folder"), image_size=SCRATCH_SIZE, seed=seed, threads=1,
                epochs=self.scratch_epochs,
            )  # fmt: skip
            trainer = self.trained("simclr", config, small)
            results.add(
                "small-resnet from scratch", seed,
                small.scores(lambda part, t=trainer: embed(t.result.eval(), part)), trainer,
            )  # fmt: skip

    def start(self, weights: str) -> Any:
        """The encoder with its starting weights."""
        return pretrained.start(
            weights, encoder=NETWORK, width=16, channels=3, size=self.image_size, dim=128,
            head_kind="linear", seed=0,
        ).eval()  # fmt: skip

    def trained(self, method: str, config: Any, task: Task) -> Trainer:
        """The trainer after its last step."""
        trainer = Trainer(method, config, task.train)
        for step in trainer:
            if step.number % 10 == 0 or step.number == trainer.total:
                print(f"  {method} {step.number}/{trainer.total} loss {step.loss:.3f}", flush=True)
        return trainer


@dataclass(frozen=True)
class Task:
    """The split of a folder and how an encoder is scored on it.

    Attributes:
        train: training part, labelled by the top folder.
        test: test part.
        themes: (N,) theme of each test picture.
        groups: (S,) near-copy group of each picture of the folder.
        test_groups: (N,) the same of the test part.
    """

    train: Any
    test: Any
    themes: Array
    groups: Array
    test_groups: Array

    @classmethod
    def of(cls, source: Any, by_theme: Any, groups: Array | None = None) -> Task:
        """Split a source; `groups` are found if they are not given."""
        if groups is None:
            groups = near_copy_groups(source)
        names = {g: source.ids[int(np.flatnonzero(groups == g)[0])] for g in np.unique(groups)}
        held = np.array([_share(names[g]) < TEST_SHARE for g in groups])
        test = np.flatnonzero(held)
        return cls(
            source.subset(np.flatnonzero(~held)), source.subset(test),
            by_theme.labels[test], groups, groups[test],
        )  # fmt: skip

    def scores(self, embedded: Any) -> dict[str, Array]:
        """(N,) what each score says of each test picture; NaN where it does not apply.

        Args:
            embedded: function from a part of the source to its `Embeddings`.
        """
        train, test = embedded(self.train), embedded(self.test)
        found = {f"knn@{K}": (knn_labels(train, test.vectors, k=K)[K] == test.labels).astype(float)}
        for budget in BUDGETS:
            right = np.full(len(test), np.nan)
            sizes = np.bincount(train.labels)
            enough = np.flatnonzero(sizes >= budget)
            rows = np.isin(test.labels, enough)
            right[rows] = few_label(
                _only(train, np.isin(train.labels, enough)), _only(test, rows), per_class=budget
            )[1]
            found[f"labels@{budget}"] = right
        right = np.full(len(test), np.nan)
        rows = self._with_other_of_theme()
        themed = Embeddings(test.vectors, test.ids, self.themes)
        nearest = leave_one_out_labels(themed, k=1, rows=rows)[1]
        right[rows] = nearest == self.themes[rows]
        return found | {"R@1": right}

    def _with_other_of_theme(self) -> Array:
        """Test pictures with another one of their theme that is no near copy."""
        rows = [
            i
            for i, (theme, group) in enumerate(zip(self.themes, self.test_groups, strict=True))
            if ((self.themes == theme) & (self.test_groups != group)).any()
        ]
        return np.array(rows)


class Results:
    """The file of results, written after each row."""

    def __init__(self, file: Path, recipe: Recipe, given: Any, task: Task) -> None:
        self.file, self.groups = file, task.test_groups
        self.right: dict[str, dict[int, dict[str, Array]]] = {}
        self.document: dict[str, Any] = {
            "command": f"python recipes/{recipe.name}.py WEIGHTS --seeds "
            + " ".join(map(str, given.seeds)) + " --methods " + " ".join(given.methods),
            "commit": COMMIT,
            "versions": {"tellapart": __version__, "torch": torch.__version__},
            "data": {
                "folder": recipe.data, "train": len(task.train), "test": len(task.test),
                "near_copy_groups": int((np.bincount(task.groups) > 1).sum()),
                "classes": len(task.train.classes), "fingerprint": task.train.fingerprint,
            },
            "image_size": recipe.image_size, "epochs": recipe.epochs,
            "rows": {}, "against_starting_weights": {}, "runs": [],
        }  # fmt: skip

    def add(
        self, row: str, seed: int, right: dict[str, Array], trainer: Trainer | None = None
    ) -> None:
        """Add the scores of a row and write the file."""
        self.right.setdefault(row, {})[seed] = right
        if trainer:
            self.document["hardware"] = hardware(trainer.machine)
            self.document["runs"].append(
                {"row": row, "seed": seed, "steps": trainer.total,
                 "processor_minutes": round(time.process_time() / 60, 1)}
            )  # fmt: skip
        self.document["rows"][row] = {
            score: {
                "mean": round(float(np.mean(values)), 4),
                "std": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
                "seeds": len(values), "items": int((~np.isnan(right[score])).sum()),
            }
            for score in right
            for values in [[float(np.nanmean(r[score])) for r in self.right[row].values()]]
        }  # fmt: skip
        if row.startswith("adapted"):
            self.document["against_starting_weights"][row] = self._differences(row)
        self.file.write_text(json.dumps(self.document, indent=1) + "\n")
        print(row, seed, {s: round(float(np.nanmean(r)), 4) for s, r in right.items()}, flush=True)

    def _differences(self, row: str) -> dict[str, dict[str, float]]:
        start, weights = self.right[START][0], resamples_of_groups(self.groups)
        found = {}
        for score, baseline in start.items():
            mean = np.mean([right[score] for right in self.right[row].values()], axis=0)
            result = compare(score, (row, mean), (START, baseline), weights)
            found[score] = {
                "difference": round(result.difference, 4),
                "low": round(result.low, 4), "high": round(result.high, 4),
                "seeds": len(self.right[row]),
            }  # fmt: skip
        return found


def near_copy_groups(source: Any) -> Array:
    """(S,) the group of near copies of each picture; one of its own if it has none."""
    modality = modality_of(source)
    looks = modality.comparison(source)
    vectors = modality.content_vectors(source, looks)
    _, near = top_k.top_k_of_others(vectors, min(NEAR, len(source) - 1))
    groups: Array = np.arange(len(source))
    for members in duplicates.find(source, near, looks).together:
        groups[members] = members[0]
    return groups


def _share(name: str) -> float:
    """A number in [0, 1) that depends on a name alone."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _only(items: Embeddings, kept: Array) -> Embeddings:
    rows = np.flatnonzero(kept)
    return Embeddings(items.vectors[rows], [items.ids[i] for i in rows], items.labels[rows])
