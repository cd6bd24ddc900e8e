"""losses: against the papers' equations written as loops, and closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from tellapart.errors import ConfigError
from tellapart.functional import label_losses, losses, tiled

S, N, D, M, TAU = 23, 5, 6, 9, 0.3


def _rows(n, seed):
    return F.normalize(
        torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


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
    assert float(losses.instance_softmax(query, bank, index, temperature=TAU)) == pytest.approx(
        loop / N, abs=1e-12
    )


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
        query,
        bank,
        index,
        noise,
        temperature=TAU,
        log_z=log_z,
        log_noise=None if uniform else p_n.double().log(),
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
    """With Z exact, the error of the gradient falls as 1 / m (Mnih & Teh 2012)."""
    bank, index = _rows(S, 1), torch.tensor([3])
    query = _rows(1, 0).requires_grad_()
    exact = torch.autograd.grad(
        losses.instance_softmax(query, bank, index, temperature=TAU), query
    )[0]
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
    assert torch.autograd.gradcheck(
        lambda q, b: losses.instance_softmax(q, b, index, temperature=TAU), (query, bank)
    )
    assert torch.autograd.gradcheck(
        lambda q, b: losses.nce(q, b, index, noise, log_z=3.0), (query, bank)
    )


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


# two views ----------------------------------------------------------------------------------------


def _sim(x, y, tau=TAU):
    return math.exp(float(x @ y) / tau)


def test_nt_xent_is_equation_1_averaged_over_both_directions():
    a, b = _rows(N, 2), _rows(N, 3)
    z = torch.cat([a, b])
    loop = 0.0
    for i in range(2 * N):
        j = (i + N) % (2 * N)
        loop -= math.log(_sim(z[i], z[j]) / sum(_sim(z[i], z[k]) for k in range(2 * N) if k != i))
    assert float(losses.nt_xent(a, b, temperature=TAU)) == pytest.approx(loop / (2 * N), rel=1e-12)


def test_info_nce_is_equation_1_of_moco_and_equation_4_of_cpc():
    q, p, n = _rows(N, 2), _rows(N, 3), _rows(M, 4)
    queue = rows = 0.0
    for i in range(N):
        own = _sim(q[i], p[i])
        queue -= math.log(own / (own + sum(_sim(q[i], n[j]) for j in range(M))))
        rows -= math.log(own / sum(_sim(q[i], p[j]) for j in range(N)))
    assert float(losses.info_nce(q, p, n, temperature=TAU)) == pytest.approx(queue / N, rel=1e-12)
    assert float(losses.info_nce(q, p, temperature=TAU)) == pytest.approx(rows / N, rel=1e-12)


def _spread_loop(a, b):
    """Ye et al. 2019, eq. 3-7, term by term; every denominator runs over the N originals."""
    loop = 0.0
    for i in range(N):
        loop -= math.log(_sim(a[i], b[i]) / sum(_sim(a[k], b[i]) for k in range(N)))
        for j in range(N):
            if j != i:
                loop -= math.log(1 - _sim(a[i], a[j]) / sum(_sim(a[k], a[j]) for k in range(N)))
    return loop / N


def test_invariant_spread_is_equations_3_to_7():
    a, b = _rows(N, 2), _rows(N, 3)
    assert float(losses.invariant_spread(a, b, temperature=TAU)) == pytest.approx(
        _spread_loop(a, b), rel=1e-10
    )


def _released(x, tau):
    """The authors' BatchCriterion (negM = 1): one factor of every product is a constant."""
    n = len(x)
    partner = x.roll(n // 2, 0).detach()
    positive = (x * partner).sum(1).div(tau).exp()
    every = (x @ x.detach().T / tau).exp() * (1 - torch.eye(n, dtype=x.dtype))
    p = every / every.sum(1, keepdim=True)
    p_positive = positive / every.sum(1)
    spread = torch.log(1 - p).sum(1) - torch.log(1 - p_positive)
    return -(p_positive.log().sum() + spread.sum()) / n


def test_the_released_variant_has_the_value_and_the_gradient_of_the_released_code():
    a, b = _rows(N, 2).requires_grad_(), _rows(N, 3).requires_grad_()
    found, wanted = (
        losses.invariant_spread_released(a, b, temperature=TAU),
        _released(torch.cat([a, b]), TAU),
    )
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(found, [a, b]), torch.autograd.grad(wanted, [a, b])
    )


def test_the_released_variant_is_finite_where_the_positive_is_certain():
    a = F.normalize(torch.eye(4), dim=1).requires_grad_()
    assert bool(_released(torch.cat([a, a]), 0.01).isnan())  # what the released code gives
    loss = losses.invariant_spread_released(a, a, temperature=0.01)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(a.grad.isfinite().all())


@pytest.mark.parametrize("n", [2, 5, 400])  # dense and tiled
def test_two_view_losses_sit_at_chance_when_all_rows_coincide(n):
    z = F.normalize(torch.ones(n, D, dtype=torch.float64), dim=1)
    r = 2 * n - 1
    assert float(losses.nt_xent(z, z)) == pytest.approx(math.log(2 * n - 1))
    assert float(losses.info_nce(z, z)) == pytest.approx(math.log(n))
    assert float(losses.info_nce(z, z, z[:1].expand(9, D))) == pytest.approx(math.log(10))
    spread = math.log(n) + (n - 1) * math.log(n / (n - 1))
    assert float(losses.invariant_spread(z, z)) == pytest.approx(spread)
    released = math.log(r) + (r - 1) * math.log(r / (r - 1))
    assert float(losses.invariant_spread_released(z, z)) == pytest.approx(released)


TWO_VIEWS = [losses.nt_xent, losses.info_nce, losses.invariant_spread]


@pytest.mark.parametrize("loss", [*TWO_VIEWS, losses.invariant_spread_released])
def test_two_view_losses_refuse_what_they_cannot_answer(loss):
    a, b = _rows(N, 0), _rows(N, 1)
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        loss(a, b, temperature=0.0)
    with pytest.raises(ConfigError, match="a batch of one"):
        loss(a[:1], b[:1])
    with pytest.raises(ConfigError, match="two tensors"):
        loss(a, b[:3])


@pytest.mark.parametrize("loss", TWO_VIEWS)
@pytest.mark.parametrize(
    "scale", [1.0, 3.0]
)  # 3: rows that nobody normalised have a defined answer too
def test_two_view_losses_pass_gradcheck_dense_and_tiled(monkeypatch, loss, scale):
    for limit in (0, 1 << 30):
        monkeypatch.setattr(tiled, "DENSE_ELEMENTS", limit)
        a, b = (_rows(4, 0) * scale).requires_grad_(), (_rows(4, 1) * scale).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, y: loss(x, y, temperature=0.5), (a, b))


@pytest.mark.parametrize("loss", TWO_VIEWS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_two_view_losses_are_finite_at_a_tiny_temperature(loss, dtype):
    a = _rows(40, 0).to(dtype).requires_grad_()
    value = loss(a, _rows(40, 1).to(dtype), temperature=0.01)
    value.backward()
    assert bool(value.isfinite() & a.grad.isfinite().all())
    assert value.dtype == torch.float32


def test_further_rows_are_negatives_but_not_anchors():
    """Two half batches, each with the other half as further rows, average to the batch."""
    a, b = _rows(8, 2), _rows(8, 3)
    for loss, extra in [
        (losses.nt_xent, lambda x, y: torch.cat([x, y])),
        (losses.invariant_spread, lambda x, y: x),
        (losses.invariant_spread_released, lambda x, y: torch.cat([x, y])),
    ]:
        halves = [
            loss(a[:4], b[:4], temperature=TAU, others=extra(a[4:], b[4:])),
            loss(a[4:], b[4:], temperature=TAU, others=extra(a[:4], b[:4])),
        ]
        assert float(sum(halves) / 2) == pytest.approx(
            float(loss(a, b, temperature=TAU)), rel=1e-10
        )


def test_the_nce_gradient_tends_to_that_of_maximum_likelihood():
    """Gutmann & Hyvarinen 2010: the error of the expected gradient falls as 1/k."""
    draw = torch.Generator().manual_seed(0)
    words = (torch.randn(12, 4, generator=draw, dtype=torch.float64) * 0.5).requires_grad_()
    z = torch.randn(1, 4, generator=draw, dtype=torch.float64)
    data = torch.softmax(torch.randn(12, generator=draw, dtype=torch.float64), 0)
    q = torch.softmax(torch.randn(12, generator=draw, dtype=torch.float64), 0)
    s = words @ z[0]
    (exact,) = torch.autograd.grad(s.logsumexp(0) - (data * s).sum(), words)
    log_z = float(s.logsumexp(0).detach())
    errors = []
    for k in (1, 10, 100, 1000):
        u = (words @ z[0] - log_z).exp()
        expected = (
            -(data * (u / (u + k * q)).log()).sum() - k * (q * (k * q / (u + k * q)).log()).sum()
        )
        (found,) = torch.autograd.grad(expected, words)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] > 0.2
    for few, many in itertools.pairwise(errors):
        assert few / many == pytest.approx(10, rel=0.5) or few / many > 3
    assert errors[-1] < 3e-3


def _expected_nce(s, log_z, data, q, k):
    """The expectation of nce over true words and draws, from its definition."""
    u = (s - log_z).exp()
    return -(data * (u / (u + k * q)).log()).sum() - k * (q * (k * q / (u + k * q)).log()).sum()


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("noise", ["uniform", "other"])
def test_training_by_nce_learns_the_distribution_and_its_normaliser(k, noise):
    """From another start, log Z learned or fixed at 0 (Z = 1): both end at the data, for any k.

    With Z fixed at 1 the scores become self-normalised: the sum of exp(s) ends near 1.
    """
    draw = torch.Generator().manual_seed(k)
    data = torch.softmax(torch.randn(9, generator=draw, dtype=torch.float64), 0)
    q = torch.softmax(torch.randn(9, generator=draw, dtype=torch.float64), 0)
    q = torch.full_like(q, 1 / 9) if noise == "uniform" else q
    for learned in (True, False):
        s = torch.randn(9, generator=draw, dtype=torch.float64).requires_grad_()
        log_z = torch.tensor(3.0 if learned else 0.0, dtype=torch.float64, requires_grad=learned)
        optimizer = torch.optim.LBFGS(
            [s, log_z] if learned else [s], max_iter=500, tolerance_grad=1e-12,
            tolerance_change=1e-16, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure(s=s, log_z=log_z, optimizer=optimizer):
            optimizer.zero_grad()
            loss = _expected_nce(s, log_z, data, q, k)
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        with torch.no_grad():
            torch.testing.assert_close((s - log_z).exp(), data, rtol=1e-3, atol=1e-4)
            assert float(s.exp().sum() / log_z.exp()) == pytest.approx(1, abs=1e-3)


def test_nce_with_many_draws_has_the_expected_gradient():
    """The function, fed by an alias table, against the expectation of its formula."""
    from tellapart.objectives.alias_table import AliasTable

    draw = torch.Generator().manual_seed(0)
    words = (torch.randn(12, 4, generator=draw, dtype=torch.float64) * 0.5).requires_grad_()
    z = torch.randn(1, 4, generator=draw, dtype=torch.float64)
    table = AliasTable(torch.arange(1.0, 13.0))
    q, k, n = table.log_probability.double().exp(), 8, 40_000
    noise = table.draw((n, k), draw)
    found = losses.nce(
        z.expand(n, 4), words, torch.full((n,), 3), noise, temperature=1.0, log_z=1.0,
        log_noise=table.log_probability.double(),
    )  # fmt: skip
    u = (words @ z[0] - 1.0).exp()
    expected = -(u[3] / (u[3] + k * q[3])).log() - k * (q * (k * q / (u + k * q)).log()).sum()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=0.01)
    a, b = torch.autograd.grad(found, words)[0], torch.autograd.grad(expected, words)[0]
    assert float((a - b).norm() / b.norm()) < 0.05


def test_noise_of_another_row_count_is_refused():
    with pytest.raises(ConfigError, match="noise must be"):
        losses.nce(
            _rows(3, 0),
            _rows(5, 1),
            torch.arange(3),
            torch.zeros(2, 4, dtype=torch.int64),
            log_z=0.0,
        )


def test_half_precision_queries_are_summed_in_float32():
    query, bank = _rows(400, 0).bfloat16(), _rows(400, 0).bfloat16()
    index, noise = torch.arange(400), torch.arange(7)
    for loss in (
        lambda q, b: losses.instance_softmax(q, b, index),
        lambda q, b: losses.nce(q, b, index, noise, log_z=8.0),
    ):
        found = loss(query, bank)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(loss(query.double(), bank.double())), rel=1e-4)


# precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 0.1, 0.05, 0.03, 0.01])
def test_info_nce_with_a_queue_keeps_float64(temperature):
    """log(1 + sum e^(n - p)), also where a negative is far nearer than the positive."""
    for seed in range(4):
        q, p, n = _rows(N, seed), _rows(N, seed + 10), _rows(M, seed + 20)
        for i in range(N):
            x = [float(q[i] @ (n[j] - p[i])) / temperature for j in range(M)]
            top = max(0.0, *x)
            exact = top + math.log(math.fsum(math.exp(v - top) for v in [0.0, *x]))
            found = losses.info_nce(q[i : i + 1], p[i : i + 1], n, temperature=temperature)
            assert float(found) == pytest.approx(exact, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("log_z", [-30.0, 0.0, 10.0, 20.0, 25.0, 35.0, 60.0])
@pytest.mark.parametrize("temperature", [0.3, 0.03])
def test_nce_keeps_float64_whatever_z(case, log_z, temperature):
    query, bank, index, noise = case
    terms = []
    for n in range(N):
        for sign, rows in ((-1, index[n : n + 1]), (1, noise[n])):
            for j in rows.tolist():
                x = sign * (float(query[n] @ bank[j]) / temperature - log_z - math.log(M / S))
                terms.append(max(x, 0.0) + math.log1p(math.exp(-abs(x))))
    found = losses.nce(query, bank, index, noise, temperature=temperature, log_z=log_z)
    assert float(found) == pytest.approx(math.fsum(terms) / N, rel=1e-12)


# shapes -------------------------------------------------------------------------------------------


def test_log_z_may_be_a_number_a_scalar_or_one_value_per_query(case):
    query, bank, index, noise = case
    each = torch.linspace(1.0, 3.0, N, dtype=torch.float64)
    alone = [
        losses.nce(query[i : i + 1], bank, index[i : i + 1], noise[0], log_z=float(each[i]))
        for i in range(N)
    ]
    for log_z in (each, each[:, None]):
        found = losses.nce(query, bank, index, noise[0], log_z=log_z)
        torch.testing.assert_close(found, torch.stack(alone).mean())
    same = losses.nce(query, bank, index, noise, log_z=2.0)
    for shape in ((), (1,), (1, 1)):
        log_z = torch.full(shape, 2.0, dtype=torch.float64)
        torch.testing.assert_close(losses.nce(query, bank, index, noise, log_z=log_z), same)


@pytest.mark.parametrize("shape", [(N + 1,), (1, N), (N, M), (N, 2), (2,)])
def test_a_log_z_of_another_shape_is_named(case, shape):
    query, bank, index, noise = case
    with pytest.raises(ConfigError, match="log_z must be"):
        losses.nce(query, bank, index, noise, log_z=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(N, 1), (1, N), (1,), (N, N)])
def test_nothing_else_broadcasts_in_silence(case, shape):
    query, bank, index, noise = case
    with pytest.raises(ConfigError, match="log_z must be"):
        losses.instance_softmax(query, bank, index, log_z=torch.zeros(shape))
    with pytest.raises(ConfigError, match="log_noise must"):
        losses.nce(query, bank, index, noise, log_z=0.0, log_noise=torch.zeros(shape))
    with pytest.raises(ConfigError, match=r"two \(N, D\) are needed"):
        losses.proximal(query, query[:1])
    with pytest.raises(ConfigError, match=r"two \(N, C\) are needed"):
        losses.distillation(query, query[:1])
    with pytest.raises(ConfigError, match="inner products"):
        losses.nce_of_similarities(
            torch.zeros(N), torch.zeros(N, M), temperature=1.0, log_z=0.0, log_noise=(0.0, 0.0)
        )


# the value at collapse ----------------------------------------------------------------------------


@pytest.mark.parametrize("log_z", [0.0, 5.0, 14.0])
@pytest.mark.parametrize("uniform", [True, False])
def test_nce_collapse_is_the_mean_loss_of_equal_rows(log_z, uniform):
    """Averaged over every true word and every single draw, which the sum over draws allows."""
    v = F.normalize(torch.ones(1, D, dtype=torch.float64), dim=1)
    weights = torch.ones(S, dtype=torch.float64) if uniform else torch.arange(1.0, S + 1).double()
    q = weights / weights.sum()
    f = torch.softmax(torch.linspace(0, 2, S, dtype=torch.float64), 0)
    bank, every = v.expand(S, D), torch.arange(S)
    mean = 0.0
    for word in range(S):
        for draw in range(S):
            value = losses.nce(
                v, bank, every[word : word + 1], every[draw : draw + 1].repeat(M),
                temperature=TAU, log_z=log_z, log_noise=q.log(),
            )  # fmt: skip
            mean += float(f[word] * q[draw] * value)
    found = losses.nce_collapse(M, 1 / TAU - log_z, q.log(), f)
    assert found == pytest.approx(mean, rel=1e-10)


def test_nce_collapse_with_the_exact_z_is_nce_chance():
    for m in (1, 7, 4096):
        found = losses.nce_collapse(m, -math.log(40), torch.full((40,), -math.log(40)))
        assert found == pytest.approx(losses.nce_chance(m), rel=1e-5)


def test_a_word_that_is_never_drawn_costs_nothing():
    q = torch.tensor([0.0, 0.5, 0.5]).double()
    found = losses.nce_collapse(1, math.log(0.5), q.log(), torch.tensor([1.0, 0.0, 0.0]))
    assert found == pytest.approx(math.log(2))  # the draw alone: ln(1 + u / q), u = q


def test_info_nce_hard_is_public():
    assert "info_nce_hard" in losses.__all__
    assert all(hasattr(losses, name) for name in losses.__all__)


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "mahalanobis"])
def test_nt_xent_of_scores_is_equation_1_for_any_similarity(kind):
    a, b = 2 * _rows(N, 2), 3 * _rows(N, 3)
    z = torch.cat([a, b])
    matrix = torch.randn(D, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    scores = {
        "cosine": F.normalize(z, dim=1) @ F.normalize(z, dim=1).T,
        "dot": z @ z.T,
        "euclidean": -torch.cdist(z, z),
        "mahalanobis": -torch.cdist(z @ matrix, z @ matrix),
    }[kind] / TAU
    loop = 0.0
    for i in range(2 * N):
        j = (i + N) % (2 * N)
        total = sum(math.exp(float(scores[i, k])) for k in range(2 * N) if k != i)
        loop -= math.log(math.exp(float(scores[i, j])) / total)
    found = losses.nt_xent_of_scores(scores)
    assert float(found) == pytest.approx(loop / (2 * N), rel=1e-12)
    if kind == "dot":
        torch.testing.assert_close(found, losses.nt_xent(a, b, temperature=TAU))


def test_nt_xent_of_scores_trains_a_distance_and_names_wrong_shapes():
    z = _rows(8, 0).requires_grad_()
    matrix = torch.eye(D, dtype=torch.float64).requires_grad_()

    def loss(rows, m):
        return losses.nt_xent_of_scores(-label_losses.squared_distances(rows @ m, rows @ m))

    assert torch.autograd.gradcheck(loss, (z, matrix))
    for shape in ((3, 3), (4, 6), (2, 2)):
        with pytest.raises(ConfigError, match=r"scores \(2N, 2N\)"):
            losses.nt_xent_of_scores(torch.zeros(shape))
