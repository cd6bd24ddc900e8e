"""tiled: equal to the dense forms, in value and gradient, at any scale of the inputs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tellapart import tiled
from tellapart.errors import ConfigError


@pytest.fixture
def small_tiles(monkeypatch):
    """Force the tiled path and several tiles on small inputs."""
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", 0)
    monkeypatch.setitem(tiled.TILE_ELEMENTS, "cpu", 64 * 7)


def _rows(n, d, seed=0, dtype=torch.float64):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_logsumexp_equals_the_dense_form_and_its_gradients(small_tiles, temperature):
    q, k = _rows(7, 5).requires_grad_(), _rows(301, 5, 1).requires_grad_()
    weight = torch.arange(7.0, dtype=torch.float64)
    value = tiled.logsumexp(q, k, temperature=temperature)
    found = torch.autograd.grad((value * weight).sum(), [q, k])
    dense = torch.logsumexp(q @ k.T / temperature, 1)
    wanted = torch.autograd.grad((dense * weight).sum(), [q, k])
    torch.testing.assert_close(value, dense)
    torch.testing.assert_close(found, wanted)


def test_logsumexp_passes_gradcheck(small_tiles):
    q, k = _rows(3, 4).requires_grad_(), _rows(200, 4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: tiled.logsumexp(a, b, temperature=0.2), (q, k))


def test_logsumexp_is_finite_for_rows_far_from_unit_length(small_tiles):
    q, k = _rows(3, 4) * 100, _rows(200, 4, 1) * 100
    value = tiled.logsumexp(q, k, temperature=0.01)
    torch.testing.assert_close(value, torch.logsumexp(q @ k.T / 0.01, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_accumulated_in_float32(small_tiles, dtype):
    q, k = _rows(4, 32, dtype=torch.float32), _rows(5000, 32, 1, dtype=torch.float32)
    value = tiled.logsumexp(q.to(dtype), k.to(dtype), temperature=0.07)
    assert value.dtype == torch.float32
    exact = torch.logsumexp(q.to(dtype).double() @ k.to(dtype).double().T / 0.07, 1)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_same_value_under_autocast(small_tiles):
    q, k = _rows(4, 8, dtype=torch.float32), _rows(300, 8, 1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = tiled.logsumexp(q, k, temperature=0.1)
    assert torch.equal(inside, tiled.logsumexp(q, k, temperature=0.1))


@pytest.mark.parametrize(("rows", "k"), [(50, 50), (1000, 7), (1003, 20), (2500, 1)])
def test_top_k_equals_sorting(monkeypatch, rows, k):
    monkeypatch.setattr(tiled, "TOP_K_ELEMENTS", 4096)
    q, bank = _rows(9, 6), _rows(rows, 6, 1)
    similarity, row = tiled.top_k(q, bank, k)
    order = (q @ bank.T).sort(1, descending=True)
    torch.testing.assert_close(similarity, order.values[:, :k])
    assert torch.equal(row, order.indices[:, :k])


def test_top_k_over_several_column_tiles(monkeypatch):
    monkeypatch.setattr(tiled, "TOP_K_COLUMNS", 512)
    q, bank = _rows(3, 4), _rows(7_000, 4, 1)
    similarity, row = tiled.top_k(q, bank, 5)
    wanted = (q @ bank.T).topk(5)
    torch.testing.assert_close(similarity, wanted.values)
    assert torch.equal(row, wanted.indices)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_temperature_is_named(temperature):
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        tiled.logsumexp(_rows(2, 3), _rows(2, 3), temperature=temperature)


def test_shapes_and_k_are_checked():
    with pytest.raises(ConfigError, match=r"got \(2, 3\) and \(2, 4\)"):
        tiled.logsumexp(_rows(2, 3), _rows(2, 4), temperature=1.0)
    with pytest.raises(ConfigError, match=r"k must lie in 1..5"):
        tiled.top_k(_rows(2, 3), _rows(5, 3), 6)
