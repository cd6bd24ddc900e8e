"""Train a network further with labels: fine-tuning, from scratch for comparison, distillation.

These evaluate networks, so unlike the rest of this room they take encoders; they return which items
were classified correctly.

Shapes: N items, C classes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import ImageSource
from ..data.sampler import batch_at, generator
from ..encoders import Encoder, hidden_layers, to_device
from ..encoders.inference import run_over
from ..errors import DataError, require
from ..functional.losses import distillation
from ..runtime.console import plural
from ..views.images import ImageViews

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Schedule:
    """Length and rate of a training: Nesterov SGD, momentum 0.9, cosine decay of the rate to zero.

    The rates were tuned on held-out training items of the scenes with 600 labels: 0.03 for
    fine-tuning without weight decay (SimCLR, app. B.5: 0.05 x batch / 256, for many more steps),
    0.3 with 5e-4 from scratch. `batch_size` becomes at most the number of items.
    """

    steps: int = 400
    batch_size: int = 64
    lr: float = 0.03
    weight_decay: float = 0.0
    area: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5
    seed: int = 0


TUNE = Schedule()
SCRATCH = Schedule(lr=0.3, weight_decay=5e-4)
DISTIL = Schedule(steps=1200, batch_size=128, lr=0.05, weight_decay=1e-4)


class Classifier(nn.Module):
    """An encoder's backbone, optionally first layers of its head, and a linear layer to C classes.

    Args:
        encoder: copied, never changed.
        classes: C.
        head_layers: how many hidden layers of the head are kept and trained (SimCLR v2 keeps the
        first).

    Raises:
        ConfigError: more hidden layers than the head has.
    """

    def __init__(self, encoder: Encoder, classes: int, *, head_layers: int = 0) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.encoder.head = first_layers(self.encoder.head, head_layers)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            self.last = nn.Linear(_width(self.encoder.head, encoder.backbone.width), classes)
            self.last.weight.mul_(0.1)
        self.to(encoder.mean.device)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) logits of views (N, C, P, P)."""
        out: Tensor = self.last(self.encoder.project(x))
        return out


def fine_tune(
    encoder: Encoder,
    labelled: ImageSource,
    *,
    classes: int,
    head_layers: int = 0,
    schedule: Schedule | None = None,
) -> Classifier:
    """A classifier trained on all weights from those of `encoder`, by cross-entropy.

    Args:
        encoder: the start; it is not changed.
        labelled: items that all have a label below `classes`.
        classes: C.
        head_layers: as `Classifier`.
        schedule: by default `TUNE`.

    Raises:
        DataError: an item without a label.

    Source: SimCLR (Chen et al. 2020, app. B.5); head_layers=1: SimCLR v2, sec. 3.
    """
    schedule = schedule or TUNE
    if labelled.labels is None or (labelled.labels < 0).any():
        raise DataError(f"fine-tuning needs a label for each item of {labelled.name}")
    model = Classifier(encoder, classes, head_layers=head_layers)
    target = torch.from_numpy(labelled.labels).to(encoder.mean.device)

    def loss(view: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(model(view), target[rows.to(target.device)])

    return _trained(model, labelled, schedule, loss)


def distil(
    teacher: Classifier,
    student: Encoder,
    unlabelled: ImageSource,
    *,
    temperature: float = 1.0,
    schedule: Schedule | None = None,
) -> Classifier:
    """A classifier on `student` trained to answer as the teacher does; labels are not read.

    Teacher and student see the same view. To distil a network into itself, give its own encoder as
    the student.

    Args:
        teacher: a trained classifier.
        student: the start of the new classifier.
        unlabelled: the images.
        temperature: of the softmax, > 0.
        schedule: by default `DISTIL`.

    Source: SimCLR v2, sec. 3, eq. 2.
    """
    model = Classifier(student, teacher.last.out_features)
    teacher.eval()

    def loss(view: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            answer = teacher(view)
        return distillation(model(view), answer, temperature=temperature)

    return _trained(model, unlabelled, schedule or DISTIL, loss)


def right(model: Classifier, test: ImageSource) -> Array:
    """Which test items a classifier gets right: (N,) 1.0 or 0.0.

    Args:
        model: a trained classifier.
        test: labelled images.

    Raises:
        DataError: no labels.
    """
    if test.labels is None:
        raise DataError(f"{test.name} has no labels to score against")
    predicted = run_over(
        lambda view, _: model(view).argmax(1).cpu(),
        test,
        module=model,
        device=model.encoder.mean.device,
        batch=256,
    )
    hits: Array = torch.cat(predicted).numpy() == test.labels
    return hits.astype(float)


def first_layers(head: nn.Module, count: int) -> nn.Module:
    """The first `count` hidden layers of a projection head, each with its ReLU; 0: none of it.

    Args:
        head: of an encoder.
        count: 0 or more.

    Raises:
        ConfigError: more layers than the head has.
    """
    ends = hidden_layers(head)
    require(
        0 <= count <= len(ends),
        f"the head has {plural(len(ends), 'hidden layer')}, {count} were asked for",
    )
    return nn.Sequential(*list(head.children())[: ends[count - 1]]) if count else nn.Identity()


def _trained(model: Classifier, items: ImageSource, schedule: Schedule, loss: Any) -> Classifier:
    views = ImageViews(
        items.image_size, area=schedule.area, flip=schedule.flip, jitter=0.0, grayscale=0.0
    )
    device, batch = model.encoder.mean.device, min(schedule.batch_size, len(items))
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=schedule.lr, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay,
    )  # fmt: skip
    model.train()
    for step in range(schedule.steps):
        rows = batch_at(step, len(items), batch, schedule.seed)
        view = views(
            to_device(items.read(rows), device),
            generator("fine-tune", schedule.seed, step, device=device),
        )
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        optimizer.zero_grad(set_to_none=True)
        loss(view, rows).backward()
        optimizer.step()
    return model.eval()


def _width(head: nn.Module, features: int) -> int:
    """The width of what a kept part of the head gives."""
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    return linear[-1].out_features if linear else features
