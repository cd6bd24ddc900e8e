"""nearest: equal to sorting every similarity."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tellapart.errors import ConfigError
from tellapart.functional import top_k


def _rows(n, d, seed=0):
    return F.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


@pytest.mark.parametrize(("rows", "k"), [(50, 50), (1000, 7), (1003, 20), (2500, 1)])
def test_top_k_equals_sorting(monkeypatch, rows, k):
    monkeypatch.setattr(top_k, "ELEMENTS", 4096)
    q, bank = _rows(9, 6), _rows(rows, 6, 1)
    similarity, row = top_k.top_k(q, bank, k)
    order = (q @ bank.T).sort(1, descending=True)
    torch.testing.assert_close(similarity, order.values[:, :k])
    assert torch.equal(row, order.indices[:, :k])


def test_top_k_over_several_column_tiles(monkeypatch):
    monkeypatch.setattr(top_k, "COLUMNS", 512)
    q, bank = _rows(3, 4), _rows(7_000, 4, 1)
    similarity, row = top_k.top_k(q, bank, 5)
    wanted = (q @ bank.T).topk(5)
    torch.testing.assert_close(similarity, wanted.values)
    assert torch.equal(row, wanted.indices)


def test_k_is_checked():
    with pytest.raises(ConfigError, match=r"k must lie in 1..5"):
        top_k.top_k(_rows(2, 3), _rows(5, 3), 6)
