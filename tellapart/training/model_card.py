"""What stands beside saved weights: how to prepare an input, and what the encoder is, in words."""

from __future__ import annotations

from typing import Any


def preprocessor(manifest: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """How an input becomes what the encoder reads, by the kind of its data."""
    data = manifest.get("data", {})
    kind = data.get("kind", "images")
    if kind == "images":
        return {
            "image_size": description["size"],
            "channels": description["channels"],
            "resize": "short side to image_size x 1.15, the middle square of image_size",
            "values": "0..1, or uint8",
            "normalisation": "inside the encoder",
        }
    if kind == "text":
        return {
            "tokenizer": "in config.json",
            "values": "token ids (N, L) and a mask of those that are no padding",
        }
    return {
        "channels": description["channels"],
        "sample_rate": data.get("rate"),
        "values": "(N, channels, steps), float in -1..1 or int16"
        if data.get("rate")
        else "(N, channels, steps), float",
        "normalisation": "inside the encoder",
    }


def model_card(manifest: dict[str, Any], description: dict[str, Any]) -> str:
    """What the encoder is, without a path, a time or a host."""
    data = manifest.get("data", {})
    licence = f" (licence of the data: {data['licence']})" if data.get("licence") else ""
    labels = "trained with labels" if data.get("labels_used") else "no labels used"
    return f"""# {manifest.get("method", "?")} encoder

- backbone: {_network(description)}
- trained by: `tellapart train {manifest.get("method", "?")}` on `{data.get("name", "?")}`{licence},
  {data.get("trained_on", "?")} items, fingerprint `{data.get("fingerprint", "?")}`, {labels}
- features: {_features(description)}; embedding: {description["dim"]} unit-norm values, the space of the loss

The weights are yours.
"""


def export_card(
    manifest: dict[str, Any],
    description: dict[str, Any],
    judged: dict[str, Any] | None,
    lost: dict[str, float],
) -> str:
    """The model card of an exported folder: the card of the run, where its data come from, and how it was judged."""
    data, versions = manifest.get("data", {}), manifest.get("versions") or {}
    init = manifest.get("config", {}).get("init")
    start = (
        f"`{init}`; their licence is that of whoever made them"
        if init
        else "none, trained from random weights"
    )
    lines = [
        model_card(manifest, description).replace("\nThe weights are yours.\n", ""),
        f"- starting weights: {start}",
        f"- licence of the data: {data.get('licence') or 'unknown'}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in versions.items())}",
        *(f"- {name}: {value}" for name, value in lost.items()),
        "",
        "## Scores",
        "",
        *_scores(judged),
        "",
        "`model.py` builds and loads it without tellapart; `python example.py IMAGE` is how.",
        "",
        "The weights are yours.",
    ]
    return "\n".join(lines) + "\n"


def _scores(judged: dict[str, Any] | None) -> list[str]:
    if not judged:
        return [
            "Not judged yet: `tellapart eval RUN` makes the scores, and a new export carries them."
        ]
    lines = [judged["verdict"]]
    rows = judged.get("scores") or {}
    if rows:
        names = list(next(iter(rows.values())))
        lines += ["", "| % | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, cells in rows.items():
            said = (
                f"{100 * c['value']:.1f} ± {50 * (c['high'] - c['low']):.1f}"
                for c in cells.values()
            )
            lines.append(f"| {row} | {' | '.join(said)} |")
        lines += [
            "",
            f"± half of a 95 % bootstrap interval over test items; protocol {judged['protocol']}.",
        ]
    return lines


def _network(description: dict[str, Any]) -> str:
    kind = description.get("kind", "images")
    if kind == "images":
        return f"{description['encoder']}, {description['channels']} channel(s), {description['size']} px"
    if kind == "text":
        return f"{description['encoder']}, sentences of up to {description['max_length']} tokens"
    strides = "x".join(map(str, description["strides"]))
    return f"convolutions of stride {strides} and {description['context']}, {description['channels']} channel(s)"


def _features(description: dict[str, Any]) -> str:
    return {
        "sequence": "the context c_t of every frame, or its mean over a sequence",
        "text": f"one vector of a sentence (pooler: {description.get('pooler')})",
    }.get(description.get("kind", "images"), "the output of the backbone")
