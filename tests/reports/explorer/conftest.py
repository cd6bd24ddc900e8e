"""A run on the digits, opened and served."""

from __future__ import annotations

import pytest

import tellapart as ta
from tellapart.evaluation.protocol import NAME as PROTOCOL
from tellapart.runtime.console import Console
from tellapart.training.run import Run

QUIET = Console(quiet=True)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run on the digits, judged in a word."""
    folder = tmp_path_factory.mktemp("explorer") / "run"
    ta.train("instdisc", data="digits", out=folder, epochs=1, threads=1, console=QUIET)
    score = {"value": 0.9, "low": 0.88, "high": 0.92, "note": ""}
    Run.open(folder).save_evaluation(
        {"protocol": PROTOCOL, "verdict": "better than pixels", "headline": "trained embedding",
         "baselines": ["centred pixels"], "comparisons": [], "counts": {"train": 1437, "test": 360},
         "scores": {"centred pixels": {"knn@200": score}, "trained embedding": {"knn@200": score}},
         "geometry": {"trained embedding": {"std": 0.8}}},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def opened(run):
    from tellapart.reports.explorer import (
        State,  # the tests beside this are skipped where its packages are missing
    )

    return State.open(run, console=QUIET)


@pytest.fixture
def port(opened):
    from explorer_client import served

    with served(opened) as number:
        yield number
