"""Presets of trainings on sentences."""

from __future__ import annotations

from dataclasses import replace

from ...objectives import MoCoOptions, SimCLROptions, SimCSEOptions
from ...views.settings import TextViews
from ..config import TextConfig
from .registry import preset


@preset
def simcse_bert() -> TextConfig:
    """The paper's unsupervised run on a million sentences; STS average 76.3. Needs a GPU."""
    return TextConfig(
        encoder="bert-base-uncased", pooler="cls", head="tanh", dim=768,  # [paper]
        max_length=32, dropout=0.1,  # [paper]
        epochs=1, batch_size=64, optimizer="adamw", lr=3e-5, weight_decay=0.0,  # [paper]
        objective=SimCSEOptions(temperature=0.05),  # [paper]
    )  # fmt: skip


@preset
def simcse_text() -> TextConfig:
    """Sentences on two cores: a small network from random weights."""
    return TextConfig(
        epochs=20, batch_size=64,  # [paper] batch
        optimizer="adamw", lr=5e-4, weight_decay=0.01, warmup=0.5, clip=1.0,  # [tuned]
        objective=SimCSEOptions(temperature=0.05),  # [paper]
    )  # fmt: skip


@preset
def moco_text() -> TextConfig:
    """CERT: earlier sentences as negatives; word deletion and reordering as views."""
    return replace(
        simcse_text(),
        views=TextViews(word_deletion=0.1, reorder=0.2),
        objective=MoCoOptions(temperature=0.07, queue=6720, momentum=0.999),  # [authors]
    )  # fmt: skip


@preset
def simclr_text() -> TextConfig:
    """DeCLUTR: spans of one document find each other."""
    return replace(
        simcse_text(),
        views=TextViews(span=64), max_length=128,  # [paper] 32 to 512 tokens
        objective=SimCLROptions(temperature=0.05),  # [paper]
    )  # fmt: skip
