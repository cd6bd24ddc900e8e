"""Data-parallel training: ranks, gathering with gradient, averaging; no-ops in one process.

This is the only module that imports torch.distributed. torchrun starts the processes and sets RANK,
LOCAL_RANK and WORLD_SIZE. Every rank must call every collective, in the same order.

Shapes: N rows of this rank, R ranks. Gathered rows are in rank order.
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

# Long, because the other ranks wait while rank 0 packs a large folder. A dead rank is detected at
# once by its closed connection.
PATIENCE = datetime.timedelta(hours=6)


def world() -> int:
    """Return the number of ranks R."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, 0 to R - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this is rank 0, the only one that prints and writes shared files."""
    return rank() == 0


def local_device() -> str | None:
    """Return the GPU of this process, None without torchrun or CUDA."""
    place = os.environ.get("LOCAL_RANK")
    return f"cuda:{place}" if place is not None and torch.cuda.is_available() else None


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the process group of torchrun (gloo on CPU, NCCL on GPU); a no-op in one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    device = local_device()
    if device:
        torch.cuda.set_device(device)
    public: Any = dist  # rendezvous and PrefixStore are public but missing from the type stubs
    store, place, size = next(public.rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps its store over restarts, with the addresses of dead ranks
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device else "gloo", timeout=PATIENCE,
        store=public.PrefixStore(f"attempt {attempt}", store), rank=place, world_size=size,
    )  # fmt: skip
    try:
        yield
        # without it, a rank could stop the threads of gloo while they still hold tensors
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error):
            reason = str(error).split(". This is")[0].splitlines()[0]
            raise RunError(
                f"another process of this training ended ({reason}). Its own error says why; "
                "the last checkpoint is whole, and --resume goes on from it"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Run the body on rank 0 first, then on the others, which find the files it wrote."""
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
    """Return whether `yes` is true on any rank.

    Args:
        yes: the value of this rank.
    """
    return yes if world() == 1 else bool(total(torch.tensor(float(yes))) > 0)


def share(value: Any) -> Any:
    """Return the value of rank 0 on every rank.

    Args:
        value: a picklable value; only that of rank 0 is used.
    """
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all ranks in rank order; values must be picklable.

    Args:
        value: the value of this rank.
    """
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def require_same(what: str, value: str) -> None:
    """Raise RunError on every rank unless all have the same value.

    Args:
        what: noun for the message.
        value: the value of this rank.
    """
    found = gather_objects(value)
    if len(set(found)) > 1:
        values = ", ".join(f"rank {i}: {v}" for i, v in enumerate(found))
        raise RunError(f"the ranks have different {what}: {values}")


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
    """Return the rows (N, ...) of all ranks as (R N, ...).

    The gradient of a row is the sum of the gradients of all ranks' losses.

    Args:
        x: rows (N, ...) of this rank, of the same shape on every rank.
    """
    if world() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


def others(x: Tensor) -> Tensor | None:
    """Return the rows of the other ranks ((R - 1) N, ...), with gradient; None in one process.

    Args:
        x: rows (N, ...) of this rank, of the same shape on every rank.
    """
    if world() == 1:
        return None
    everyone = gather(x)
    mine = slice(rank() * len(x), (rank() + 1) * len(x))
    return torch.cat([everyone[: mine.start], everyone[mine.stop :]])


def total(x: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks, without gradient.

    Args:
        x: tensor of the same shape on every rank.
    """
    if world() == 1:
        return x.detach()
    x = x.detach().clone()
    dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over ranks, without gradient.

    Args:
        x: tensor of the same shape on every rank.
    """
    return total(x) / world()


def mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of `values` (N,) over the rows of all ranks that are `valid` (N,).

    Each rank returns its share times R, so that the mean over ranks is the mean over rows. The
    result is 0, with gradient, if no row is valid.

    Args:
        values: values (N,) of the rows of this rank.
        valid: booleans (N,).
    """
    count = total(valid.sum()).clamp_min(1)
    return torch.where(valid, values, 0.0).sum() * world() / count


def mine(size: int) -> range:
    """Return the source rows whose memory rows this rank keeps: every R-th one.

    Source row = rank + R x rank row; the rank row is the row in this rank's shard.

    Args:
        size: number of items of the source.
    """
    return range(rank(), size, world())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over ranks in one flat bucket; a missing gradient counts as 0.

    Args:
        parameters: the parameters, in the same order on every rank.
    """
    if world() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    average([p.grad for p in trained if p.grad is not None])


@torch.no_grad()
def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over ranks, all in one flat float32 bucket.

    Args:
        tensors: tensors of the same shapes on every rank, changed in place.
    """
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.flatten().float() for t in tensors])
    dist.all_reduce(flat)
    flat /= world()
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view_as(t))
