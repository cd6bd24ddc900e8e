"""The model card of an exported encoder: the card of its run, its provenance and its scores."""

from __future__ import annotations

from typing import Any

from ..evaluation import score_table
from ..runtime.text import safe
from ..training.model_card import model_card, training_state

WEIGHTS = "\nThe weights are yours.\n"


def export_card(
    manifest: dict[str, Any],
    description: dict[str, Any],
    scores: dict[str, Any] | None,
    losses: dict[str, float],
) -> str:
    """Return the model card of an exported folder.

    Args:
        manifest: what run.json holds.
        description: what encoder/config.json holds.
        scores: what eval.json holds, None where the run was not evaluated.
        losses: what folding or half precision cost, by name.
    """
    data, versions = manifest.get("data", {}), manifest.get("versions") or {}
    init = manifest.get("config", {}).get("init")
    start = f"`{init}`, under the licence of their authors" if init else "none"
    lines = [
        model_card(manifest, description).replace(WEIGHTS, "").rstrip("\n"),
        f"- starting weights: {start}",
        f"- licence of the data: {data.get('licence') or 'unknown'}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in versions.items())}",
        *(f"- {name}: {value}" for name, value in losses.items()),
        "",
        "## Scores",
        "",
        *score_lines(scores, training_state(manifest)),
        "",
        "`model.py` loads it without tellapart; `python example.py IMAGE` is an example.",
    ]
    return safe("\n".join(lines) + "\n", lines=True) + WEIGHTS


def score_lines(scores: dict[str, Any] | None, state: str = "") -> list[str]:
    """Return the verdict and the tables of an evaluation as lines of Markdown.

    Args:
        scores: what eval.json holds, None where the run was not evaluated.
        state: a sentence on a training that is not finished, "" otherwise.
    """
    if not scores:
        missing = "Not evaluated yet: run `tellapart eval RUN`, then export again."
        return [f"{state} {missing}".strip()]
    verdict = str(scores["verdict"])
    return [verdict if state in verdict else f"{state} {verdict}", *score_table.markdown(scores)]
