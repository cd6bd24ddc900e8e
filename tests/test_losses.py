"""losses: against the papers' equations written as loops, and closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from tellapart import losses, tiled
from tellapart.errors import ConfigError

S, N, D, M, TAU = 23, 5, 6, 9, 0.3


def _rows(n, seed):
    return F.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


@pytest.fixture
def case():
    draw = torch.Generator().manual_seed(9)
    index = torch.randperm(S, generator=draw)[:N]
    return _rows(N, 0), _rows(S, 1), index, torch.randint(S, (N, M), generator=draw)


def _p(v, bank, i, log_z=0.0):
    return math.exp(float(v @ bank[i]) / TAU - log_z)


def test_instance_softmax_is_equation_2(case):
    query, bank, index, _ = case
    loop = 0.0
    for v, i in zip(query, index, strict=True):
        loop -= math.log(_p(v, bank, i) / sum(_p(v, bank, j) for j in range(S)))
    assert float(losses.instance_softmax(query, bank, index, temperature=TAU)) == pytest.approx(loop / N, abs=1e-12)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_nce_is_equations_3_to_7(case, uniform, shared):
    query, bank, index, noise = case
    noise = noise[0] if shared else noise
    p_n = torch.full((S,), 1 / S) if uniform else torch.softmax(torch.arange(S) / 7.0, 0)
    log_z, loop = 2.5, 0.0
    for n, (v, i) in enumerate(zip(query, index.tolist(), strict=True)):
        h = _p(v, bank, i, log_z) / (_p(v, bank, i, log_z) + M * float(p_n[i]))
        loop -= math.log(h)
        for j in (noise if shared else noise[n]).tolist():
            h = _p(v, bank, j, log_z) / (_p(v, bank, j, log_z) + M * float(p_n[j]))
            loop -= math.log(1 - h)
    found = losses.nce(
        query, bank, index, noise, temperature=TAU, log_z=log_z, log_noise=None if uniform else p_n.double().log()
    )
    assert float(found) == pytest.approx(loop / N, rel=1e-7)


def test_chance_levels_when_every_row_coincides():
    v = F.normalize(torch.ones(1, D, dtype=torch.float64), dim=1)
    query, bank, index = v.expand(N, D), v.expand(S, D), torch.arange(N)
    assert float(losses.instance_softmax(query, bank, index)) == pytest.approx(math.log(S))
    noise = torch.randint(S, (M,))
    found = losses.nce(query, bank, index, noise, log_z=1 / 0.07 + math.log(S))
    assert float(found) == pytest.approx(losses.nce_chance(M))
    assert losses.nce_chance(1) == pytest.approx(2 * math.log(2))


def test_a_random_bank_starts_above_chance_by_the_known_amount():
    d, tau, size = 128, 0.07, 60_000
    draw = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(size, d, generator=draw), dim=1)
    query = F.normalize(torch.randn(64, d, generator=draw), dim=1)
    log_z = tiled.logsumexp(query, bank, temperature=tau).mean()
    assert float(log_z) - math.log(size) == pytest.approx(1 / (2 * d * tau**2), abs=0.02)


def test_the_gradient_of_nce_tends_to_that_of_the_softmax():
    """With Z exact, the error of the gradient falls as 1 / m (Mnih & Teh 2012; every row drawn equally often)."""
    bank, index = _rows(S, 1), torch.tensor([3])
    query = _rows(1, 0).requires_grad_()
    exact = torch.autograd.grad(losses.instance_softmax(query, bank, index, temperature=TAU), query)[0]
    log_z = tiled.logsumexp(query.detach(), bank, temperature=TAU)[:, None]
    errors = []
    for copies in (1, 10, 100, 1000):
        noise = torch.arange(S).repeat(copies)
        value = losses.nce(query, bank, index, noise, temperature=TAU, log_z=log_z)
        errors.append(float((torch.autograd.grad(value, query)[0] - exact).norm()))
    for wide, narrow in itertools.pairwise(errors):
        assert narrow == pytest.approx(wide / 10, rel=0.5)


def test_proximal_is_the_squared_distance(case):
    query, bank, index, _ = case
    loop = sum(float(((v - bank[i]) ** 2).sum()) for v, i in zip(query, index, strict=True)) / N
    assert float(losses.proximal(query, bank[index])) == pytest.approx(loop)


def test_gradients_in_float64(case):
    query, bank, index, noise = case
    query.requires_grad_()
    bank.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, b: losses.instance_softmax(q, b, index, temperature=TAU), (query, bank))
    assert torch.autograd.gradcheck(lambda q, b: losses.nce(q, b, index, noise, log_z=3.0), (query, bank))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_a_temperature_of_a_hundredth(case, dtype):
    query, bank, index, noise = case
    query, bank = query.to(dtype).requires_grad_(), bank.to(dtype)
    for value in (
        losses.instance_softmax(query, bank, index, temperature=0.01),
        losses.nce(query, bank, index, noise, temperature=0.01, log_z=50.0),
    ):
        (grad,) = torch.autograd.grad(value, query)
        assert bool(value.isfinite())
        assert bool(grad.isfinite().all())


@pytest.mark.parametrize("loss", [losses.instance_softmax, losses.nce])
def test_bad_input_is_named(case, loss):
    query, bank, index, noise = case
    more = {"noise": noise, "log_z": 0.0} if loss is losses.nce else {}
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        loss(query, bank, index, temperature=0, **more)
    with pytest.raises(ConfigError, match="one index per query"):
        loss(query, bank, index[:2], **more)
    with pytest.raises(ConfigError, match="are needed, got"):
        loss(query, bank[:, :3], index, **more)


def test_noise_of_the_wrong_shape_is_named(case):
    query, bank, index, noise = case
    with pytest.raises(ConfigError, match="noise must be"):
        losses.nce(query, bank, index, noise[:2], log_z=0.0)
