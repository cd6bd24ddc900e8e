"""Memory of each instance between the steps that see it. All state is in saved buffers.

Shapes: N batch, S instances in the source, D embedding width, K queue length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import require


class MemoryBank(nn.Module):
    """One unit row per instance: random at first, then an average of the instance's embeddings.

    row <- normalise(momentum * row + (1 - momentum) * z). `momentum` is the averaging of the
    authors' code. The paper's proximal term (`losses.proximal`) is another method: it slows the
    network, this slows the memory. Only `update` and `fill` write.

    Known value: with random rows the softmax starts near ln S + 1 / (2 D tau^2), above chance.

    Args:
        size: S > 0.
        dim: D > 0.
        momentum: in [0, 1); 0 keeps only the newest embedding.
        generator: draws the random unit rows (Wu 2018, sec. 3.1: "random unit vectors").
        dtype: storage type: float32, or bfloat16 or float16 for half the memory, with rows about
            3e-3 off.

    Raises:
        ConfigError: size, dim or momentum outside its range.

    >>> bank = MemoryBank(10, 4, generator=torch.Generator().manual_seed(0))
    >>> bank.update(torch.tensor([3]), torch.tensor([[1.0, 0, 0, 0]]))
    >>> bank.rows.shape, bool(bank.rows[3, 0] > 0)
    (torch.Size([10, 4]), True)
    """

    rows: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        momentum: float = 0.5,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        require(
            size > 0 and dim > 0, f"a memory bank needs size > 0 and dim > 0, got {size} and {dim}"
        )
        require(0 <= momentum < 1, f"the bank momentum must lie in [0, 1), got {momentum}")
        self.momentum = momentum
        rows = torch.randn(size, dim, generator=generator, device=generator.device)
        self.register_buffer("rows", F.normalize(rows, dim=1).to(dtype))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def update(self, index: Tensor, z: Tensor) -> None:
        """Move rows towards new embeddings.

        Args:
            index: (N,) int64 rows. Where a row is repeated, its last entry alone counts, with the
                row as it was before the call.
            z: (N, D) unit embeddings.
        """
        index, z = _last_of_each(index, z)
        old = self.rows[index].float()
        self.fill(index, self.momentum * old + (1 - self.momentum) * z.to(old))

    @torch.no_grad()
    def fill(self, index: Tensor, z: Tensor) -> None:
        """Set rows to the directions of vectors.

        Args:
            index: (N,) int64 rows; where a row is repeated, its last entry counts.
            z: (N, D), not zero.
        """
        index, z = _last_of_each(index, z)
        self.rows[index] = F.normalize(z.float(), dim=1).to(self.rows)


class Queue(nn.Module):
    """The newest K embeddings, oldest replaced first: the negatives of MoCo. Random at first.

    Args:
        size: K > 0; any size goes with any batch.
        dim: D > 0.
        generator: draws the first rows, unit vectors.

    Raises:
        ConfigError: size or dim outside its range.

    Source:
        He et al. 2020 (arXiv 1911.05722), sec. 3.2.

    >>> queue = Queue(5, 2, generator=torch.Generator().manual_seed(0))
    >>> queue.push(torch.arange(6.0).view(3, 2)); queue.push(torch.arange(6.0, 12.0).view(3, 2))
    >>> queue.rows[:, 0].tolist()   # the sixth row has wrapped onto the first
    [10.0, 2.0, 4.0, 6.0, 8.0]
    """

    rows: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, *, generator: torch.Generator) -> None:
        super().__init__()
        require(size > 0 and dim > 0, f"a queue needs size > 0 and dim > 0, got {size} and {dim}")
        rows = torch.randn(size, dim, generator=generator, device=generator.device)
        self.register_buffer("rows", F.normalize(rows, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def push(self, z: Tensor) -> None:
        """Replace the oldest rows.

        Args:
            z: (N, D) embeddings; of more than K rows the last K stay.
        """
        size = len(self.rows)
        place = (self.pointer + torch.arange(len(z), device=z.device)) % size
        self.rows[place[-size:]] = z[-size:].to(self.rows)
        self.pointer.copy_((self.pointer + len(z)) % size)


def _last_of_each(index: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Each index once, with the last of its rows: repeated writes have no defined order."""
    order = index.argsort(stable=True)
    ordered = index[order]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return ordered[last], z[order[last]]
