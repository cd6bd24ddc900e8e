"""Several processes that train one encoder: ranks, gathering with gradient, averaging. No-ops in one process.

The only importer of torch.distributed. Started by torchrun, which sets RANK, LOCAL_RANK and WORLD_SIZE. Every
collective must be called by every rank, in the same order.
Shapes: N rows of this rank, R ranks. Rows of all ranks stand in rank order.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import RunError

PATIENCE = datetime.timedelta(
    hours=6
)  # one rank packs a large folder while the others wait; a dead rank is
# noticed at once, by its closed connection


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, 0 to R - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, which alone prints and writes what all share."""
    return rank() == 0


def local_device() -> str | None:
    """The accelerator of this process where torchrun started several on one machine."""
    place = os.environ.get("LOCAL_RANK")
    return f"cuda:{place}" if place is not None and torch.cuda.is_available() else None


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the other processes of torchrun (gloo on CPU, NCCL on GPU); nothing where there is only this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    device = local_device()
    if device:
        torch.cuda.set_device(device)
    public: Any = dist  # rendezvous and PrefixStore are, but type checkers do not find them listed
    store, place, size = next(public.rendezvous("env://", timeout=PATIENCE))
    attempt = os.environ.get(
        "TORCHELASTIC_RESTART_COUNT", "0"
    )  # torchrun keeps its store, and dead ranks' addresses
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device else "gloo", timeout=PATIENCE,
        store=public.PrefixStore(f"attempt {attempt}", store), rank=place, world_size=size,
    )  # fmt: skip
    try:
        yield
        dist.barrier()  # a process that leaves at once tears down gloo's threads while they let go of its last tensors
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error):
            said = str(error).split(". This is")[0].splitlines()[0]
            raise RunError(
                f"another process of this training ended ({said}). Its own error says why; the last checkpoint is "
                "whole, and --resume goes on from it"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the body while the others wait, then they run it: what it leaves on the disk is there."""
    if world() > 1 and not is_main():
        dist.barrier()
    try:
        yield
    finally:
        if world() > 1 and is_main():
            dist.barrier()


def barrier() -> None:
    """Wait for every rank."""
    if world() > 1:
        dist.barrier()


def any_rank(yes: bool) -> bool:
    """Whether any rank says yes."""
    return yes if world() == 1 else bool(total(torch.tensor(float(yes))) > 0)


def share(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """The values of every rank, in rank order; any values that can be pickled."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def require_same(what: str, value: str) -> None:
    """Raise RunError on every rank unless all have the same value."""
    found = gather_objects(value)
    if len(set(found)) > 1:
        raise RunError(
            f"the ranks have different {what}: {', '.join(f'rank {i}: {v}' for i, v in enumerate(found))}"
        )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather(x: Tensor) -> Tensor:
    """(R N, ...) the rows (N, ...) of every rank; the gradient of a row is the sum over all ranks' losses."""
    if world() == 1:
        return x
    found: Tensor = _Gather.apply(x)
    return found


def others(x: Tensor) -> Tensor | None:
    """((R - 1) N, ...) the rows of the other ranks, with gradient; None in one process."""
    if world() == 1:
        return None
    everyone = gather(x)
    mine = slice(rank() * len(x), (rank() + 1) * len(x))
    return torch.cat([everyone[: mine.start], everyone[mine.stop :]])


def total(x: Tensor) -> Tensor:
    """The sum over ranks of a tensor, without gradient."""
    if world() == 1:
        return x.detach()
    x = x.detach().clone()
    dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean over ranks of a tensor, without gradient."""
    return total(x) / world()


def mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of `values` (N,) where `valid`, over the valid rows of all ranks; 0, with gradient, if there are none.

    Each rank returns its share times R, so that the mean over ranks is the mean over rows.
    """
    count = total(valid.sum()).clamp_min(1)
    return torch.where(valid, values, 0.0).sum() * world() / count


def mine(size: int) -> range:
    """The instances of a source of `size` that this rank reads and remembers: every R-th one."""
    return range(rank(), size, world())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over ranks, all in one flat bucket; a parameter unused on one rank counts as 0 there."""
    if world() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    average([p.grad for p in trained if p.grad is not None])


@torch.no_grad()
def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, all in one flat float32 bucket."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.flatten().float() for t in tensors])
    dist.all_reduce(flat)
    flat /= world()
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view_as(t))
