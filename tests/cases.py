"""Cases shared by the contract tests: objectives, a network without BatchNorm, and batches."""

from __future__ import annotations

import torch
from torch import nn

from tellapart import objectives
from tellapart.encoders import Encoder
from tellapart.encoders.vision import Backbone
from tellapart.objectives import (
    Batch,
    CPCOptions,
    ExemplarOptions,
    InstDiscOptions,
    MarginOptions,
    MoCoOptions,
    NCEOptions,
    SimCLROptions,
    SpreadOptions,
    SupConOptions,
    TripletOptions,
)
from tellapart.runtime import distributed

CASES = {
    "softmax": ("instdisc", InstDiscOptions(temperature=0.1)),
    "softmax, half-precision bank": ("instdisc", InstDiscOptions(bank_dtype="bfloat16")),
    "softmax, started by the encoder": ("instdisc", InstDiscOptions(bank_start="encoder")),
    "softmax, proximal": ("instdisc", InstDiscOptions(proximal=0.3)),
    "nce, shared": ("instdisc", InstDiscOptions(loss="nce", negatives=32)),
    "nce, per instance": ("instdisc", InstDiscOptions(loss="nce", negatives=32, noise="instance")),
    "nce, frozen Z": ("instdisc", InstDiscOptions(loss="nce", negatives=32, z="frozen")),
    "nce, positive allowed": (
        "instdisc",
        InstDiscOptions(loss="nce", negatives=32, exclude_positive=False),
    ),
    "parametric": ("exemplar", ExemplarOptions()),
    "spread": ("spread", SpreadOptions()),
    "spread, released": ("spread", SpreadOptions(loss="released")),
    "moco": ("moco", MoCoOptions(queue=50)),
    "moco, symmetric": ("moco", MoCoOptions(queue=50, symmetric=True)),
    "simclr": ("simclr", SimCLROptions()),
    "supcon": ("supcon", SupConOptions()),
    "supcon, in, three views": ("supcon", SupConOptions(reduction="in", views=3)),
    "supcon, one view": ("supcon", SupConOptions(views=1)),
    "margin": ("margin", MarginOptions()),
    "margin, sphere, labels": ("margin", MarginOptions(sphere=True, pairs="labels")),
    "margin, neighbours": ("margin", MarginOptions(pairs="neighbours", neighbours=30)),
    "triplet": ("triplet", TripletOptions(margin=0.6)),
    "triplet, hard": ("triplet", TripletOptions(mining="hard")),
    "triplet, all": ("triplet", TripletOptions(mining="all")),
    "triplet, batch-hard, views": (
        "triplet",
        TripletOptions(mining="batch-hard", positives="views"),
    ),
    "words": ("nce", NCEOptions(negatives=32)),
    "cpc": ("cpc", CPCOptions(steps=3, negatives=20)),
    "cpc, own sequence": ("cpc", CPCOptions(steps=3, negatives=20, draw="sequence")),
    "cpc, others of the label, attention": (
        "cpc",
        CPCOptions(steps=3, negatives=20, draw="label-others", predictor="transformer"),
    ),
    "words, classes, fixed Z": (
        "nce",
        NCEOptions(negatives=32, vocabulary="classes", z="fixed", power=0.75),
    ),
}
N = 12


BY_PLACE = ("nce, per instance", "cpc", "cpc, own sequence", "cpc, others of the label, attention")
"""Cases whose noise goes by the place of an item in the batch."""


class Rows(Encoder):
    """An Encoder that also reads an image row by row: a frame for each, and the running mean."""

    width, context_width = 8, 8

    def sequence(self, x):
        weight = (
            self.backbone.linear.weight
        )  # its own, so that every objective trains the same parameters
        z = self.normalised(x)[:, 0] @ weight[:8, :16].T * 4
        c = z.cumsum(1) / torch.arange(1, 17)[:, None] @ weight[8:16, :8].T * 4
        return z, c, torch.full((len(x),), 16)


class Plain(Backbone):
    """A backbone without BatchNorm, so that an item's output does not depend on its batch."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.linear, self.dropout = nn.Linear(256, 20), nn.Dropout(dropout)
        self.width = 20

    def forward(self, x):
        return self.dropout(self.linear(x.flatten(1)).relu())


def encoder(dropout=0.0, dtype=torch.float32):
    torch.manual_seed(0)
    made = Rows(
        Plain(dropout), nn.Linear(20, 8), 8, mean=torch.tensor([0.3]), std=torch.tensor([0.4])
    )
    return made.to(dtype)


def made(name, source, network, seed=0):
    objective = objectives.build(*CASES[name], seed=seed)
    objective.attach(network, source)
    return objective


def batch(source, views, index=None, dtype=torch.float32):
    """The items, then the items with a little noise that depends on the item, not on its batch."""
    index = torch.arange(3, 3 + N) if index is None else index
    first = source.read(index).to(dtype) / 255
    noise = [torch.stack([_noise(int(i), v) for i in index]).to(dtype) for v in range(1, views)]
    label = torch.from_numpy(source.labels)[index]
    return Batch([first, *((first + n).clamp(0, 1) for n in noise)], index, label)


def _noise(item, view):
    return 0.2 * torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1000 * view + item))


def random(seed=1):
    return torch.Generator().manual_seed(seed)


def leak(bn_rows, shuffle, steps=120, pairs=16):
    """Loss minus chance for pairs whose two views share nothing but the statistics of their group.

    The second view of an item is the other item of its group of two, so only the statistics of the
    group match a query to its key. `pairs`: groups per process; bn_rows None: BatchNorm over all.
    """
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 32), nn.ReLU()
    )
    body.width = 32
    network = Encoder(
        body, nn.Linear(32, 8), 8, mean=torch.zeros(1), std=torch.ones(1), bn_rows=bn_rows
    ).train()
    objective = objectives.build("moco", MoCoOptions(queue=128, momentum=0.9, shuffle=shuffle), 0)
    objective.attach(network, range(1000))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    draw, found = torch.Generator().manual_seed(1), []
    for step in range(steps):
        torch.manual_seed(step)
        x = torch.randn(distributed.world(), pairs, 2, 1, 2, 4, generator=draw)[distributed.rank()]
        given = Batch([x.flatten(0, 1), x.flip(1).flatten(0, 1)], torch.arange(2 * pairs))
        out = objective.loss(objective.embed(network, given), given, draw)
        optimizer.zero_grad()
        out.loss.backward()
        distributed.average_gradients(network.parameters())
        optimizer.step()
        objective.after_step(network, out)
        found.append(float(distributed.mean(out.loss)))
    return sum(found[-40:]) / 40 - objective.chance(64)
