"""Runs side by side: what each cost, how far its loss fell, and how its encoder scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtime.console import Console
from ..training.run import Run

LINES = {
    "method": "method",
    "status": "status",
    "epochs": "epochs",
    "minutes": "minutes",
    "items_per_second": "images/s",
    "peak_memory": "peak memory, GB",
    "loss": "loss / chance",
    "knn": "k-NN at the deciding k, %",
    "linear": "linear, %",
}


def side_by_side(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each run; None where something has not been measured.

    `loss` is the last loss, without penalties, divided by its chance level, so that methods can be
    compared: 1 is a collapse. The scores are {"accuracy", "low", "high"} of the headline row of
    eval.json if it is of the last step: a 95 % interval over test items.
    """
    return [_row(run) for run in runs]


def print_comparison(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the rows of `side_by_side`: a column for each run."""
    body = [(title, *(_shown(name, row[name]) for row in rows)) for name, title in LINES.items()]
    heads = ("", *(row["run"] for row in rows))
    console.table(heads, body, title="95 % confidence intervals over test items")


def _row(run: Run) -> dict[str, Any]:
    manifest, lines = run.manifest, run.metrics()
    last = lines[-1] if lines else {}
    judged = run.evaluation() or {}
    own = judged.get("fingerprint") == manifest.get("data", {}).get("fingerprint")
    stale = "step" in judged and judged["step"] != manifest.get("step")
    if stale or not own or judged.get("checkpoint", "last") != "last" or judged.get("labels"):
        judged = {}  # of an earlier step, or another source, checkpoint or labels
    scores = judged.get("scores", {}).get(judged.get("headline"), {})
    chance = last.get("chance")
    seconds = manifest.get("seconds")
    return {
        "run": str(run.path),
        "method": manifest.get("method"),
        "epochs": last.get("epoch"),
        "minutes": None if seconds is None else round(seconds / 60, 2),
        "items_per_second": last.get("items_per_second"),
        "peak_memory": manifest.get("peak_memory"),
        "loss": round(last.get("contrastive", last["loss"]) / chance, 3) if chance else None,
        "knn": _score(scores.get(judged.get("deciding", {}).get("column", "knn@200"))),
        "linear": _score(scores.get("linear")),
        "status": manifest.get("status"),
    }


def _score(scores: dict[str, float] | None) -> dict[str, float] | None:
    return (
        None
        if scores is None
        else {"accuracy": scores["value"], "low": scores["low"], "high": scores["high"]}
    )


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("knn", "linear"):
        low, high = 100 * value["low"], 100 * value["high"]
        return f"{100 * value['accuracy']:.1f}\n({low:.1f} to {high:.1f})"
    if name == "peak_memory":
        return f"{value / 1e9:.2f}"
    if name == "items_per_second":
        return f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
