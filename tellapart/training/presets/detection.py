"""Settings of a detector on a backbone, and their presets; free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...errors import require


@dataclass(frozen=True)
class DetectConfig:
    """A detector and its training; the defaults are for scenes of 96 px on two cores in minutes.

    Args:
        head: fpn, a feature pyramid over the last three stages; c4, one map, and the last stage as
            the head of each region (He et al. 2020).
        steps: training steps.
        batch_size: images per step.
        lr: peak learning rate.
        momentum: momentum of SGD.
        weight_decay: weight decay, per step and times the learning rate.
        lr_steps: shares of the training at which the rate falls tenfold.
        warmup: steps of linear rise to the peak rate.
        frozen_stages: number of stages, from the first (the stem), that are not trained.
        freeze_bn: BatchNorm keeps its statistics and is not trained.
        min_size: short side of a resized image in pixels.
        max_size: longest side of a resized image in pixels.
        sizes: sides of the anchors in pixels of the resized image.
        regions: regions of an image that the head learns from.
        proposals: regions of an image that reach the head.
        flip: probability of a mirror image.
        seed: seed of everything random.
    """

    head: Literal["fpn", "c4"] = "fpn"
    steps: int = 600
    batch_size: int = 8
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    lr_steps: tuple[float, ...] = (0.75, 0.92)
    warmup: int = 100
    frozen_stages: int = 0
    freeze_bn: bool = False
    min_size: int = 96
    max_size: int = 96
    sizes: tuple[int, ...] = (16, 24, 32)
    regions: int = 32
    proposals: int = 100
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "min_size", "regions", "proposals"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')} must be 1 or more, got {value}")
        require(self.lr > 0, f"--lr must be above 0, got {self.lr}")
        require(0 <= self.flip <= 1, f"--flip is a probability in 0..1, got {self.flip}")
        require(
            self.frozen_stages >= 0, f"--frozen-stages must be 0 or more, got {self.frozen_stages}"
        )
        require(self.max_size >= self.min_size, "--max-size must be --min-size or more")


def voc07() -> DetectConfig:
    """MoCo's VOC setting, ResNet-50-C4 with BatchNorm trained: 24,000 steps of 16. Wants a GPU."""
    return DetectConfig(
        head="c4", steps=24_000, batch_size=16, lr=0.02, lr_steps=(0.75, 0.9167),
        min_size=800, max_size=1333, sizes=(32, 64, 128, 256, 512), regions=512, proposals=2000,
    )  # fmt: skip


def instdisc_voc07() -> DetectConfig:
    """InstDisc's: nothing below the third block is trained, BatchNorm is frozen. Wants a GPU."""
    return DetectConfig(
        head="c4", steps=100_000, batch_size=2, lr=0.001, lr_steps=(0.5, 0.99),
        min_size=600, max_size=1000, frozen_stages=3, freeze_bn=True,
        sizes=(128, 256, 512), regions=128, proposals=2000,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], DetectConfig]] = {
    "scenes": DetectConfig,
    "voc07": voc07,
    "voc07-instdisc": instdisc_voc07,
}
