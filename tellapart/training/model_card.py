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
    """Return the model card of a run: no path, no time and no host, so that equal runs have equal cards.

    Args:
        manifest: what run.json holds; its "step" is that of the weights.
        description: what encoder/config.json holds.
    """
    data = manifest.get("data", {})
    licence = f" (licence of the data: {data['licence']})" if data.get("licence") else ""
    step, steps = manifest.get("step"), manifest.get("steps")
    checkpoint = f"- checkpoint: step {step:,} of {steps:,}\n" if step and steps else ""
    labels = "trained with labels" if data.get("labels_used") else "no labels used"
    return f"""# {manifest.get("method", "?")} encoder

- backbone: {_network(description)}
- trained by: `tellapart train {manifest.get("method", "?")}` on `{data.get("name", "?")}`{licence},
  {data.get("trained_on", "?")} items, fingerprint `{data.get("fingerprint", "?")}`, {labels}
- features: {_features(description)}; embedding: {description["dim"]} unit-norm values, the space of the loss
{checkpoint}
The weights are yours.
"""


def training_state(manifest: dict[str, Any]) -> str:
    """Return a sentence on a training that did not reach its end, "" for a finished one.

    Args:
        manifest: what run.json holds.

    >>> training_state({"status": "interrupted", "step": 33, "steps": 656})
    'The training was interrupted at step 33 of 656.'
    """
    status = manifest.get("status", "finished")
    step, steps = manifest.get("step"), manifest.get("steps")
    if status == "finished":
        return ""
    where = f" at step {step:,}" if isinstance(step, int) else ""
    where += f" of {steps:,}" if where and isinstance(steps, int) else ""
    if status == "running":
        return f"The training has not finished: its last checkpoint is{where or ' not written'}."
    return f"The training {'failed' if status == 'failed' else 'was interrupted'}{where}."


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
