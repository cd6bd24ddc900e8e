"""Files saved with the weights: preprocessing settings and the model card."""

from __future__ import annotations

from typing import Any

from ..data import modality_of


def preprocessor(manifest: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing settings of an encoder, which depend on the kind of data.

    Args:
        manifest: contents of run.json.
        description: content of encoder/config.json.
    """
    data = manifest.get("data", {})
    return modality_of(data.get("kind", "images")).preprocessor(data, description)


def model_card(manifest: dict[str, Any], description: dict[str, Any]) -> str:
    """Return the model card of a run.

    It holds no path, time or host name, so that equal runs have equal cards.

    Args:
        manifest: what run.json holds; its "step" is that of the weights.
        description: what encoder/config.json holds.
    """
    data = manifest.get("data", {})
    licence = f" (licence of the data: {data['licence']})" if data.get("licence") else ""
    network, features = modality_of(data.get("kind", "images")).card(description)
    step, steps = manifest.get("step"), manifest.get("steps")
    checkpoint = f"- checkpoint: step {step:,} of {steps:,}\n" if step and steps else ""
    labels = "trained with labels" if data.get("labels_used") else "no labels used"
    return f"""# {manifest.get("method", "?")} encoder

- backbone: {network}
- trained by: `tellapart train {manifest.get("method", "?")}` on `{data.get("name", "?")}`{licence},
  {data.get("trained_on", "?")} items, fingerprint `{data.get("fingerprint", "?")}`, {labels}
- features: {features}; embedding: {description["dim"]} unit-norm values, the space of the loss
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
