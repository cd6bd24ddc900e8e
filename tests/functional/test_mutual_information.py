"""Closed forms, every estimator against its formula as a loop, and the Gaussian in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from tellapart.errors import ConfigError
from tellapart.functional import mutual_information as mi

N, WIDTH = 64, 20


def _scores(n=7, seed=0):
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gaussian_log_q(level, batches=200, n=N):
    """ln of the true conditional for all pairs of each batch of correlated Gaussians."""
    rho = mi.correlation_of(level, WIDTH)
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        x, noise = (
            torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)
        )
        y = rho * x + math.sqrt(1 - rho**2) * noise
        variance = 1 - rho**2
        apart = (y[None] - rho * x[:, None]).square().sum(2)
        yield -apart / (2 * variance) - WIDTH / 2 * math.log(2 * math.pi * variance), y


def test_tables_agree_with_scipy_and_with_the_chain_rule():
    joint = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint /= joint.sum()
    assert float(mi.entropy(joint)) == pytest.approx(scipy_entropy(joint.flatten().numpy()))
    by_rows = sum(
        float(p) * scipy_entropy((row / p).numpy())
        for p, row in zip(joint.sum(1), joint, strict=True)
    )
    assert float(mi.conditional_entropy(joint)) == pytest.approx(by_rows)
    loop = sum(
        float(joint[i, j] * torch.log(joint[i, j] / (joint.sum(1)[i] * joint.sum(0)[j])))
        for i in range(4)
        for j in range(5)
    )
    assert float(mi.discrete_information(joint)) == pytest.approx(loop)
    with pytest.raises(ConfigError, match="probabilities"):
        mi.entropy(torch.tensor([0.5, 0.7]))


def test_gaussians_agree_with_their_formulas():
    rho = 0.6
    d = 3
    covariance = torch.eye(2 * d, dtype=torch.float64)
    covariance[:d, d:] = covariance[d:, :d] = rho * torch.eye(d)
    assert float(mi.gaussian_information(covariance, d)) == pytest.approx(
        -d / 2 * math.log(1 - rho**2)
    )
    conditional = d / 2 * math.log(2 * math.pi * math.e * (1 - rho**2))
    assert float(mi.gaussian_conditional_entropy(covariance, d)) == pytest.approx(conditional)
    assert mi.correlation_of(float(mi.gaussian_information(covariance, d)), d) == pytest.approx(rho)
    with pytest.raises(ConfigError, match="positive definite"):
        mi.gaussian_entropy(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_lower_bounds_are_their_formulas():
    s = _scores()
    n = len(s)
    apart = [float(s[i, j]) for i in range(n) for j in range(n) if i != j]
    diagonal = np.mean([float(s[i, i]) for i in range(n)])
    nce = np.mean(
        [
            float(s[i, i]) - math.log(sum(math.exp(float(s[i, j])) for j in range(n)))
            for i in range(n)
        ]
    )
    assert float(mi.info_nce(s)) == pytest.approx(nce + math.log(n))
    assert float(mi.nwj(s)) == pytest.approx(diagonal - np.mean(np.exp(np.array(apart) - 1)))
    assert float(mi.donsker_varadhan(s)) == pytest.approx(
        diagonal - math.log(np.mean(np.exp(apart)))
    )
    assert float(mi.jensen_shannon(s)) == pytest.approx(1 + diagonal - np.mean(np.exp(apart)))
    soft = np.mean(np.log1p(np.exp(-s.diagonal().numpy()))) + np.mean(np.log1p(np.exp(apart)))
    assert float(mi.jensen_shannon_loss(s)) == pytest.approx(soft)


def test_info_nce_never_exceeds_ln_n_and_nothing_shared_is_nothing():
    assert float(mi.info_nce(1000 * torch.eye(16))) == pytest.approx(math.log(16), abs=1e-5)
    zero = torch.zeros(16, 16)
    for bound in (mi.info_nce, mi.donsker_varadhan, mi.jensen_shannon, mi.club, mi.leave_one_out):
        assert float(bound(zero)) == pytest.approx(0, abs=1e-6)
    assert float(mi.nwj(zero + 1)) == pytest.approx(0, abs=1e-6)


def test_upper_bounds_are_their_formulas_and_leave_one_out_is_not_club():
    s = _scores()
    n = len(s)
    club = np.mean([float(s[i, i]) for i in range(n)]) - float(s.mean())
    assert float(mi.club(s)) == pytest.approx(club)
    leaving = np.mean(
        [
            float(s[i, i])
            - math.log(sum(math.exp(float(s[j, i])) for j in range(n) if j != i) / (n - 1))
            for i in range(n)
        ]
    )
    assert float(mi.leave_one_out(s)) == pytest.approx(leaving)
    assert abs(leaving - club) > 0.1
    drawn = [float(mi.club_sampled(s, torch.Generator().manual_seed(i))) for i in range(4000)]
    assert np.mean(drawn) == pytest.approx(club, abs=0.05)


@pytest.mark.parametrize(("level", "exact"), [(2, 4.43), (6, 16.44), (10, 34.37)])
def test_club_with_the_true_conditional_is_far_above_the_information(level, exact):
    found = np.mean([float(mi.club(log_q)) for log_q, _ in _gaussian_log_q(level)])
    assert found == pytest.approx(
        exact * (1 - 1 / N), rel=0.03
    )  # the N own pairs are among its N^2


def test_leave_one_out_and_the_variational_bound_with_the_true_conditional():
    leaving, variational = [], []
    for log_q, y in _gaussian_log_q(6):
        leaving.append(float(mi.leave_one_out(log_q)))
        marginal = -y.square().sum(1) / 2 - WIDTH / 2 * math.log(2 * math.pi)
        variational.append(float(mi.variational_upper(log_q.diagonal(), marginal)))
    assert np.mean(leaving) == pytest.approx(7.89, abs=0.15)
    assert np.mean(variational) == pytest.approx(
        6.0, abs=0.1
    )  # the marginal is exact, so the bound is the truth


def test_the_gradient_of_mine_is_divided_by_the_running_mean():
    s = _scores().requires_grad_()
    loss, running = mi.mine_loss(s, torch.zeros((), dtype=torch.float64))
    loss.backward()
    n = len(s)
    mean = s.detach().exp().masked_fill(torch.eye(n, dtype=torch.bool), 0).sum() / (n * (n - 1))
    assert float(running) == pytest.approx(float(mean))
    assert float(s.grad[0, 1]) == pytest.approx(
        float(s.detach()[0, 1].exp() / (n * (n - 1)) / mean)
    )
    _, later = mi.mine_loss(s.detach() + 1, running)
    assert float(later) == pytest.approx(float(0.99 * mean + 0.01 * mean * math.e))


@pytest.mark.parametrize("name", mi.ESTIMATORS)
def test_every_estimator_learns_a_small_gaussian(name):
    rho = 0.8
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, generator=generator)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(4000, 1, generator=generator)
    truth = -0.5 * math.log(1 - rho**2)  # 0.51 nats
    found = mi.measure(name, x, y, steps=400, hidden=16)
    high = mi.exact_club(rho, 1) if name.startswith("club") else truth
    assert truth - 0.15 < found < high + 0.25
    assert found == mi.measure(name, x, y, steps=400, hidden=16)


def test_shapes_and_names_that_are_wrong_are_named():
    with pytest.raises(ConfigError, match="did you mean 'club'"):
        mi.Estimator("clubb", 1, 1)
    with pytest.raises(ConfigError, match="N, N"):
        mi.info_nce(torch.zeros(3, 4))
    with pytest.raises(ConfigError, match="ten pairs"):
        mi.measure("infonce", torch.zeros(4, 1), torch.zeros(4, 1))


def test_a_bound_near_its_ceiling_is_said():
    from tellapart.training import diagnosis

    rows = [
        {"step": i, "loss": 4.0 * 0.8**i + 0.05, "chance": 4.16, "std": 1.0, "effective_rank": 9.0}
        | {"information": 4.16 - (4.0 * 0.8**i + 0.05)}
        for i in range(40)
    ]
    assert "larger --batch-size" in diagnosis.judge(rows).sentence
    assert "larger --batch-size" not in diagnosis.judge(rows[:8]).sentence
