"""geometry: against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tellapart import geometry

Z = F.normalize(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), dim=1)


def test_uniformity_is_the_log_mean_over_pairs():
    terms = [math.exp(-2 * float((Z[i] - Z[j]).square().sum())) for i in range(20) for j in range(i)]
    assert float(geometry.uniformity(Z)) == pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-5)


def test_collapse_reads_as_collapse():
    z = Z[:1].expand(20, 5)
    assert float(geometry.uniformity(z)) == pytest.approx(0, abs=1e-6)
    assert float(geometry.effective_rank(z)) == pytest.approx(1, abs=1e-3)
    assert float(geometry.relative_std(z)) == pytest.approx(0, abs=1e-3)
    assert float(geometry.alignment(z, z)) == 0


def test_effective_rank_is_the_exponential_of_the_entropy():
    s = np.linalg.svd(Z.numpy(), compute_uv=False)
    p = s / s.sum()
    assert float(geometry.effective_rank(Z)) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_relative_std_is_one_minus_the_squared_mean():
    wanted = math.sqrt(1 - float(Z.mean(0).square().sum()))
    assert float(geometry.relative_std(Z)) == pytest.approx(wanted, abs=1e-5)


def test_alignment_with_another_exponent():
    other = Z.roll(1, 0)
    wanted = float((Z - other).norm(dim=1).pow(3).mean())
    assert float(geometry.alignment(Z, other, alpha=3)) == pytest.approx(wanted)
