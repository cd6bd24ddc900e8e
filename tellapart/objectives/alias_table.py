"""Draws from any distribution over a vocabulary in constant time (Walker's alias method)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import require


class AliasTable(nn.Module):
    """S equal slices, each shared by at most two words: a draw picks a slice, then one of its two.

    Args:
        weights: (S,) not negative, not all zero; they need not sum to one.
    Attributes:
        log_probability: (S,) of each word, -inf where the weight is 0.
    Raises:
        ConfigError: weights that are not a distribution.
    Source: Walker 1977; Vose 1991.

    >>> table = AliasTable(torch.tensor([1.0, 0.0, 3.0]))
    >>> torch.bincount(table.draw((4000,), torch.Generator().manual_seed(0))).tolist()
    [1008, 0, 2992]
    """

    keep: Tensor
    alias: Tensor
    log_probability: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        w = weights.double()
        require(
            w.ndim == 1
            and len(w) > 0
            and bool(w.isfinite().all() & (w >= 0).all())
            and float(w.sum()) > 0,
            "a noise distribution needs finite weights (S,) of 0 or more, not all 0",
        )
        p = w / w.sum()
        keep, alias = _table(p)
        self.register_buffer("keep", keep)
        self.register_buffer("alias", alias)
        self.register_buffer("log_probability", p.log().float())

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Words (*shape) int64, with replacement; `generator` on the table's device."""
        device = self.keep.device
        slot = torch.randint(len(self.keep), shape, generator=generator, device=device)
        stay = torch.rand(shape, generator=generator, device=device) < self.keep[slot]
        return torch.where(stay, slot, self.alias[slot])


def _table(p: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each word of less than a slice with one of more, until every slice is full."""
    share = (p * len(p)).tolist()
    keep, alias = [1.0] * len(p), list(range(len(p)))
    small = [i for i, x in enumerate(share) if x < 1]
    large = [i for i, x in enumerate(share) if x >= 1]
    while small and large:
        a, b = small.pop(), large.pop()
        keep[a], alias[a] = share[a], b
        share[b] -= 1 - share[a]
        (small if share[b] < 1 else large).append(b)
    return torch.tensor(keep, dtype=torch.float32), torch.tensor(alias)
