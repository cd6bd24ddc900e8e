"""geometry: against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tellapart.functional import geometry

Z = F.normalize(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), dim=1)


def test_uniformity_is_the_log_mean_over_pairs():
    terms = [
        math.exp(-2 * float((Z[i] - Z[j]).square().sum())) for i in range(20) for j in range(i)
    ]
    assert float(geometry.uniformity(Z)) == pytest.approx(
        math.log(sum(terms) / len(terms)), abs=1e-5
    )


def test_collapse_reads_as_collapse():
    z = Z[:1].expand(20, 5)
    assert float(geometry.uniformity(z)) == pytest.approx(0, abs=1e-6)
    assert float(geometry.effective_rank(z)) == pytest.approx(1, abs=1e-3)
    assert float(geometry.relative_std(z)) == pytest.approx(0, abs=1e-3)
    assert float(geometry.alignment(z, z)) == 0


def test_effective_rank_is_the_exponential_of_the_entropy():
    s = np.linalg.svd(Z.numpy(), compute_uv=False)
    p = s / s.sum()
    assert float(geometry.effective_rank(Z)) == pytest.approx(
        math.exp(-(p * np.log(p)).sum()), rel=1e-4
    )


def test_relative_std_is_one_minus_the_squared_mean():
    wanted = math.sqrt(1 - float(Z.mean(0).square().sum()))
    assert float(geometry.relative_std(Z)) == pytest.approx(wanted, abs=1e-5)


def test_alignment_with_another_exponent():
    other = Z.roll(1, 0)
    wanted = float((Z - other).norm(dim=1).pow(3).mean())
    assert float(geometry.alignment(Z, other, alpha=3)) == pytest.approx(wanted)


def test_a_collapsed_encoder_finds_no_view():
    for seed in range(8):
        row = torch.nn.functional.normalize(
            torch.randn(1, 64, generator=torch.Generator().manual_seed(seed)), dim=1
        )
        z = row.expand(256, 64).contiguous()
        assert geometry.view_retrieval(z, z) < 0.02


def test_view_retrieval_and_agreement_are_loops():
    a, b = torch.nn.functional.normalize(
        torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0)), dim=2
    )
    b = torch.nn.functional.normalize(a + 0.7 * b, dim=1)
    hits = sum(int((a[i] @ b.T).argmax()) == i for i in range(30))
    assert float(geometry.view_retrieval(a, b)) == pytest.approx(hits / 30)
    shared = 0
    for i in range(30):
        near = [{int(j) for j in (z @ z[i]).topk(4).indices if j != i} for z in (a, b)]
        shared += len(near[0] & near[1])
    assert float(geometry.neighbour_agreement(a, b, k=3)) == pytest.approx(shared / 90)


def test_lidar_is_the_rank_of_what_tells_items_apart():
    random = torch.Generator().manual_seed(0)
    items = torch.randn(200, 1, 3, generator=random)
    wide = torch.cat([items, torch.zeros(200, 1, 5)], 2) + 0.01 * torch.randn(
        200, 4, 8, generator=random
    )
    assert float(geometry.lidar(wide)) == pytest.approx(3, abs=0.15)
    s = wide.double()
    mean = s.mean(1)
    between = torch.cov(mean.T, correction=0)
    within = torch.cov((s - mean[:, None]).flatten(0, 1).T, correction=0) + 1e-4 * torch.eye(8)
    values = torch.linalg.eigvals(torch.linalg.inv(within) @ between).real.clamp_min(0)
    p = values / values.sum()
    assert float(geometry.lidar(wide)) == pytest.approx(
        float(torch.exp(-(p * (p + 1e-12).log()).sum())), rel=1e-4
    )


def test_hubness_grows_with_a_hub():
    ring = torch.nn.functional.normalize(
        torch.randn(100, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    hub = torch.nn.functional.normalize(torch.cat([torch.eye(60), torch.full((1, 60), 1.0)]), dim=1)
    assert geometry.hubness(hub, k=1) > geometry.hubness(ring, k=1) + 2


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (3,)])
def test_unit_rows_have_length_one_in_torch_and_numpy(dtype, shape):
    """Both libraries agree; float64 is kept, narrower types become float32; zero stays zero."""
    values = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    values[..., 0] += 20
    kept = "float64" if dtype == "float64" else "float32"
    for given in (values, torch.from_numpy(values)):
        before = given.copy() if isinstance(given, np.ndarray) else given.clone()
        found = geometry.unit_rows(given)
        assert type(found) is type(given)
        assert str(found.dtype).removeprefix("torch.") == kept
        length = np.linalg.norm(np.asarray(found, dtype=np.float64), axis=-1)
        np.testing.assert_allclose(length, 1.0, rtol=1e-6)
        assert (np.asarray(before) == np.asarray(given)).all()
    np.testing.assert_allclose(
        geometry.unit_rows(values), geometry.unit_rows(torch.from_numpy(values)).numpy(), rtol=1e-6
    )
    assert not geometry.unit_rows(np.zeros((2, 3), dtype)).any()
    assert not geometry.unit_rows(torch.zeros(2, 3)).any()


def test_unit_rows_read_memory_maps_without_a_warning(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((4, 2), np.float32))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    np.testing.assert_allclose(geometry.unit_rows(rows), np.sqrt(0.5))
