"""The peer of two benchmarks: SimCLR as lightly's examples write it, with the settings of one of
our configurations.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from tellapart.data import ImageSource
from tellapart.encoders import AnyEncoder
from tellapart.objectives import SimCLROptions
from tellapart.training.config import TrainConfig
from tellapart.training.optimizer import learning_rate, optimizer
from tellapart.training.trainer import build_encoder


def train(
    source: ImageSource, config: TrainConfig, *, workers: int, threads: int, half: bool = False
) -> Iterator[AnyEncoder]:
    """The encoder after every step: the same network, operations, batch, optimiser and rates as the
    Trainer's.

    workers: of its DataLoader. half: with autocast to bfloat16, which its examples leave to the
    caller.
    """
    torch.set_num_threads(threads)
    assert isinstance(config.objective, SimCLROptions)
    views = config.views
    transform = SimCLRTransform(
        input_size=32,
        cj_prob=views.jitter,
        cj_strength=1.0,
        cj_bright=views.brightness,
        cj_contrast=views.contrast,
        cj_sat=views.saturation,
        cj_hue=views.hue,
        min_scale=views.area[0],
        random_gray_scale=views.grayscale,
        gaussian_blur=views.blur,
        hf_prob=views.flip,
        normalize=None,
    )
    pictures = [Image.fromarray(source.image(i)) for i in range(len(source))]

    class Images(Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, i: int) -> list[torch.Tensor]:
            found: list[torch.Tensor] = transform(pictures[i])
            return found

    loader = DataLoader(
        Images(),
        config.batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    network = build_encoder(config, source).train()
    steps, loss = (
        optimizer(config, network.parameters()),
        NTXentLoss(temperature=config.objective.temperature),
    )
    total = config.steps or round(config.epochs * len(loader))
    number = 0
    while number < total:
        for first, second in loader:
            for group in steps.param_groups:
                group["lr"] = learning_rate(config, number, total, len(loader))
            steps.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                views = network(first), network(second)
            loss(*views).backward()
            steps.step()
            number += 1
            yield network
            if number == total:
                return
