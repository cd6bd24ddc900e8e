"""Presets of trainings on sounds and series."""

from __future__ import annotations

from dataclasses import replace

from ...objectives import CPCOptions, SimCLROptions
from ...views.settings import SequenceViews
from ..config import SequenceConfig
from .registry import preset


@preset
def cpc_librispeech() -> SequenceConfig:
    """The paper's audio experiment; phones 64.6 %, speakers 97.4 %. Needs 8 GPUs."""
    return SequenceConfig(
        width=512, context_width=256, context="gru", norm="batch",  # [paper]
        kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2),  # [paper]
        sample_rate=16_000, views=SequenceViews(window=20_480),  # [paper]
        batch_size=64, steps=300_000,  # [paper] 8 on each of 8 GPUs
        optimizer="adamw", lr=2e-4, weight_decay=0.0, schedule="constant",  # [paper] Adam
        objective=CPCOptions(steps=12, negatives=128),  # [paper] 12; [authors] 128, later code
    )  # fmt: skip


@preset
def cpc_audio() -> SequenceConfig:
    """Folders of sound on two cores in a quarter of an hour."""
    return SequenceConfig(
        width=128, context_width=256, context="gru", norm="channel",  # [paper] context
        views=SequenceViews(window=10_240),  # half the paper's
        batch_size=16, epochs=40,
        optimizer="adamw", lr=1.5e-3, weight_decay=0.0, warmup=1.0,
        objective=CPCOptions(steps=12, negatives=128),  # [paper]
    )  # fmt: skip


@preset
def cpc_series() -> SequenceConfig:
    """Tables of measurements: a frame every four steps."""
    return replace(
        cpc_audio(),
        kernels=(8, 4),
        strides=(2, 2),
        views=SequenceViews(window=512),
        objective=CPCOptions(steps=8, negatives=64),
    )


@preset
def simclr_audio() -> SequenceConfig:
    """Two windows of one sound, changed in loudness, pitch, spectrum and time."""
    return replace(
        cpc_audio(),
        head="mlp-bn",
        batch_size=64,
        views=replace(
            cpc_audio().views, gain=6.0, noise=0.1, band_reject=0.5, pitch=2.0, time_mask=0.5
        ),
        objective=SimCLROptions(temperature=0.2),
    )


@preset
def simclr_series() -> SequenceConfig:
    """Two windows of one series."""
    return replace(
        simclr_audio(),
        kernels=(8, 4),
        strides=(2, 2),
        views=replace(simclr_audio().views, window=512, pitch=0.0, gain=3.0, band_reject=0.2),
    )
