"""Run by every process of a group: each objective's step on half a batch, and short trainings.

`python tests/ranks.py FOLDER`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from cases import CASES, batch, encoder, leak, made, random

from tellapart import open_source
from tellapart.encoders.norms import running_statistics
from tellapart.objectives import OPTIONS, InstDisc, InstDiscOptions, MoCoOptions
from tellapart.runtime import distributed
from tellapart.training.config import TrainConfig
from tellapart.training.trainer import Trainer

SHARED = [name for name in CASES if name != "nce, per instance"]
ORDER = torch.tensor([4, 9, 22, 61, 90, 101, 5, 8, 23, 60, 91, 100])  # rank 0 reads the first six


def fill(objective, network, source, rows):
    """Give a bank the rows of a known one: `rows` of the instances it holds."""
    if isinstance(objective, InstDisc):
        known = torch.nn.functional.normalize(
            torch.randn(len(source), network.dim, generator=random(5)), dim=1
        )
        objective.bank.fill(torch.arange(len(rows)), known[rows])


def step(name, source, index, rows):
    """Loss, gradients and what is left in the state after one step."""
    network = encoder(dtype=torch.float64)
    objective = made(name, source, network)
    fill(objective, network, source, rows)
    given = batch(source, objective.views, index, dtype=torch.float64)
    out = objective.loss(objective.embed(network, given), given, random())
    out.loss.backward()
    trained = [p for m in (network, objective) for p in m.parameters() if p.requires_grad]
    distributed.average_gradients(trained)
    objective.after_step(network, out)
    return {
        "loss": distributed.mean(out.loss),
        "gradients": [torch.zeros_like(p) if p.grad is None else p.grad for p in trained],
        "state": objective.state_dict(),
        "writes": {k: v for k, v in out.writes.items() if k == "log_z"},
    }


def main(folder):
    """Every case, and the collectives themselves, into FOLDER/RANK.pt."""
    source = open_source("digits").split("train").subset(range(0, 200))
    torch.set_num_threads(1)
    with distributed.joined():
        rank = distributed.rank()
        if distributed.world() != 2:
            torch.save({name: training(name) for name in TRAININGS}, folder / f"{rank}.pt")
            return
        found = {
            name: step(
                name,
                source,
                ORDER[rank * 6 : rank * 6 + 6],
                list(distributed.mine(200)),
            )
            for name in SHARED
        }
        found["collectives"] = collectives(rank)
        found["trainings"] = {name: training(name) for name in TRAININGS}
        found["leak"] = {shuffle: leak(2, shuffle, pairs=4) for shuffle in (False, True)}
    torch.save(found, folder / f"{rank}.pt")


TRAININGS = {
    "simclr": ("simclr", {"head": "mlp-bn"}),
    "instdisc, softmax": ("instdisc", {}),
    "instdisc, nce": ("instdisc", {"objective": InstDiscOptions(loss="nce", negatives=40)}),
    "moco": ("moco", {"objective": MoCoOptions(queue=100)}),
    "spread": ("spread", {}),
    "supcon, micro-batches": ("supcon", {"micro_batch": 10}),
}
"""Methods that several processes train as one does: default views, BatchNorm in groups of 10."""


def training(name):
    """Losses and weights of a short training by the Trainer, on whatever processes there are."""
    method, more = TRAININGS[name]
    options = {"objective": OPTIONS[method]()} | more
    config = TrainConfig(
        steps=4, batch_size=60, threads=1, dim=16, width=8, bn="split", bn_rows=10, lr=0.1,
        precision="float32", **options,
    )  # fmt: skip
    source = open_source("digits").split("train").subset(range(0, 150))
    trainer = Trainer(method, config, source)
    start = _flat(trainer.encoder)
    losses = [step.loss for step in trainer]
    end = _flat(trainer.encoder)
    return {"losses": losses, "weights": end, "moved": (end - start).norm()}


def _flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def collectives(rank):
    """The result of each objective in this process."""
    x = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
    everyone = distributed.gather(x)
    (everyone * torch.arange(8.0).view(4, 2) * (rank + 1)).sum().backward()
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank)
    distributed.average(running_statistics(norm))
    errors = []
    for value in ("same", f"mine {rank}"):
        try:
            distributed.require_same("data", value)
        except Exception as error:
            errors.append(str(error))
    with distributed.main_first():
        first = Path(sys.argv[1], "made").exists()
        Path(sys.argv[1], "made").touch()
    valid = torch.tensor([True, rank == 0])
    return {
        "gathered": everyone.detach(),
        "gradient": x.grad,
        "others": distributed.others(x).detach(),
        "statistics": norm.running_mean,
        "errors": errors,
        "first": first,
        "shared": distributed.share(f"from {rank}"),
        "any": (distributed.any_rank(rank == 1), distributed.any_rank(False)),
        "mean": distributed.mean_of_valid(torch.tensor([1.0, 2.0]) + rank, valid),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
