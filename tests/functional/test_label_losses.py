"""label_losses: against the papers' equations written as loops, closed forms, and each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from tellapart.errors import ConfigError
from tellapart.functional import label_losses, losses, tiled
from tellapart.functional.label_losses import (
    spring,
    squared_distances,
    sup_con_anchors,
    triplets,
)

D, TAU = 6, 0.3


def _rows(n, seed, d=D):
    return F.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])


def _sup_con_loop(z, labels, reduction):
    """Khosla et al. 2020, eq. 2 (out) and 3 (in), over the anchors that have a positive."""
    values = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if not positives:
            continue
        total = sum(math.exp(float(z[i] @ z[a]) / TAU) for a in range(len(z)) if a != i)
        p = [math.exp(float(z[i] @ z[p]) / TAU) / total for p in positives]
        values.append(
            -sum(map(math.log, p)) / len(p) if reduction == "out" else -math.log(sum(p) / len(p))
        )
    return sum(values) / len(values)


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize("reduction", ["out", "in"])
def test_sup_con_is_equations_2_and_3(monkeypatch, reduction, limit):
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", limit)
    z = _rows(8, 0)
    found = losses.sup_con(z, LABELS, temperature=TAU, reduction=reduction)
    assert float(found) == pytest.approx(_sup_con_loop(z, LABELS.tolist(), reduction), rel=1e-10)


@pytest.mark.parametrize("reduction", ["out", "in"])
def test_any_number_of_views_are_rows_of_one_label(reduction):
    z = F.normalize(
        torch.randn(4, 3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=2
    )
    labels = torch.tensor([0, 1, 1, 2])
    found = losses.sup_con(z, labels, temperature=TAU, reduction=reduction)
    rows = losses.sup_con(
        z.flatten(0, 1), labels.repeat_interleave(3), temperature=TAU, reduction=reduction
    )
    assert float(found) == pytest.approx(float(rows), rel=1e-12)


def test_with_instance_ids_it_is_nt_xent_exactly():
    a, b = _rows(9, 0), _rows(9, 1)
    found = losses.sup_con(torch.stack([a, b], 1), torch.arange(9), temperature=TAU)
    assert float(found) == pytest.approx(float(losses.nt_xent(a, b, temperature=TAU)), rel=1e-12)


def test_in_is_at_most_out_and_equal_for_one_positive():
    z = _rows(8, 3)
    inside, outside = (
        losses.sup_con(z, LABELS, temperature=TAU, reduction=r) for r in ("in", "out")
    )
    assert float(inside) < float(outside)
    pairs = torch.arange(4).repeat(2)
    inside, outside = (
        losses.sup_con(z, pairs, temperature=TAU, reduction=r) for r in ("in", "out")
    )
    assert float(inside) == pytest.approx(float(outside), rel=1e-12)


def test_anchors_without_a_positive_are_left_out_and_none_at_all_gives_zero():
    z = _rows(4, 0).requires_grad_()
    _, valid = sup_con_anchors(z, torch.tensor([0, 0, 1, 2]), temperature=TAU, reduction="out")
    assert valid.tolist() == [True, True, False, False]
    alone = losses.sup_con(z, torch.arange(4), temperature=TAU)
    alone.backward()
    assert float(alone.detach()) == 0
    assert float(z.grad.abs().sum()) == 0
    inside = losses.sup_con(z, torch.arange(4), temperature=TAU, reduction="in")
    assert float(inside.detach()) == 0
    torch.autograd.backward(inside)
    assert bool(z.grad.isfinite().all())


def test_sup_con_at_collapse_is_at_chance():
    z = F.normalize(torch.ones(10, 2, D), dim=2)
    for reduction in ("out", "in"):
        found = losses.sup_con(z, torch.arange(10) % 3, reduction=reduction)
        assert float(found) == pytest.approx(math.log(19), rel=1e-5)


@pytest.mark.parametrize("reduction", ["out", "in"])
def test_sup_con_passes_gradcheck_tiled(monkeypatch, reduction):
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", 0)
    z = _rows(8, 0, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: losses.sup_con(x, LABELS, temperature=0.4, reduction=reduction), (z,)
    )


def test_the_triplet_limit_of_sup_con_and_its_true_margin():
    """One positive, one negative: softplus((d_p - d_n) / (2 tau)); near 0 margin 4 tau ln 2."""
    tau = 0.1
    anchor = F.normalize(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), dim=0)
    for angle_p, angle_n in [(0.3, 0.5), (0.5, 0.3), (0.4, 0.4), (0.1, 2.5)]:
        p = torch.tensor([math.cos(angle_p), math.sin(angle_p), 0.0], dtype=torch.float64)
        n = torch.tensor([math.cos(angle_n), 0.0, math.sin(angle_n)], dtype=torch.float64)
        values, _ = sup_con_anchors(
            torch.stack([anchor, p, n]), torch.tensor([0, 0, 1]), temperature=tau, reduction="out"
        )
        d_p, d_n = float((anchor - p).square().sum()), float((anchor - n).square().sum())
        assert float(values[0]) == pytest.approx(
            math.log1p(math.exp((d_p - d_n) / (2 * tau))), rel=1e-9
        )
        if abs(d_p - d_n) < 0.01:
            assert float(values[0]) == pytest.approx(
                (d_p - d_n + 4 * tau * math.log(2)) / (4 * tau), rel=1e-6
            )


# margin -------------------------------------------------------------------------------------------


def test_margin_contrastive_is_equation_4():
    a, b = _rows(6, 0), _rows(6, 1) * 0.7
    same = torch.tensor([True, False, True, False, False, True])
    loop = 0.0
    for x, y, s in zip(a, b, same.tolist(), strict=True):
        d = math.sqrt(float((x - y).square().sum()))
        loop += 0.5 * d**2 if s else 0.5 * max(0.0, 1.3 - d) ** 2
    assert float(losses.margin_contrastive(a, b, same, margin=1.3)) == pytest.approx(
        loop / 6, rel=1e-12
    )


def test_the_spring_pulls_in_proportion_and_is_slack_beyond_the_margin():
    a = torch.zeros(1, 1, dtype=torch.float64)
    for d in (0.2, 0.5, 0.9, 1.5):
        b = torch.full((1, 1), d, dtype=torch.float64, requires_grad=True)
        (pull,) = torch.autograd.grad(losses.margin_contrastive(a, b, torch.tensor([True])), b)
        (push,) = torch.autograd.grad(losses.margin_contrastive(a, b, torch.tensor([False])), b)
        assert float(pull) == pytest.approx(d)
        assert float(push) == pytest.approx(-max(0.0, 1 - d))


def test_a_dissimilar_pair_at_one_point_has_a_finite_gradient():
    a = torch.zeros(1, 3, requires_grad=True)
    losses.margin_contrastive(a, torch.zeros(1, 3), torch.tensor([False])).backward()
    assert a.grad.abs().sum() == 0


GAPS = [1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 1e-5]


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("width", [2, 32, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_of_near_duplicates_are_exact_in_value_and_force(gap, width, dtype):
    """Against float64 differences of the same rows: distances, and the force on every row."""
    n = 64
    a = _rows(n, 0, width).to(dtype)
    b = (_rows(n, 0, width).roll(1, 0) + gap * _rows(n, 1, width)).to(dtype)
    exact = (a.double()[:, None] - b.double()).square().sum(2)
    tolerance = 3e-5 if dtype == torch.float32 else 1e-12
    same = torch.eye(n, dtype=torch.bool)
    force = []
    for distances, kind in ((squared_distances, dtype), (_by_differences, torch.float64)):
        x, y = (v.detach().to(kind).requires_grad_() for v in (a, b))
        squares = distances(x, y)
        pairs = spring(squares, same, 1.0)
        torch.testing.assert_close(squares.double(), exact, rtol=tolerance, atol=0.0)
        near = pairs[torch.arange(n), (torch.arange(n) + 1) % n]  # dissimilar, at distance `gap`
        force.append(torch.cat(torch.autograd.grad(near.sum(), [x, y], retain_graph=True)))
        force.append(torch.cat(torch.autograd.grad(pairs.sum(), [x, y])))
    for got, wanted in zip(force[:2], force[2:], strict=True):
        worst = (got.double() - wanted).norm(dim=1).max() / wanted.norm(dim=1).max()
        assert float(worst) < 10 * tolerance
    assert float(force[0].norm(dim=1).min()) == pytest.approx(1 - gap, rel=1e-2)


def _by_differences(a, b):
    return (a[:, None] - b).square().sum(2)


@pytest.mark.parametrize("limit", [0, 1 << 24])
def test_a_batch_that_has_collapsed_to_near_duplicates_is_exact_too(monkeypatch, limit):
    """Every pair is close; above the limit of kept differences torch.cdist takes over."""
    monkeypatch.setattr(label_losses, "CLOSE_ELEMENTS", limit)
    clusters = _rows(3, 0)[torch.arange(60) % 3]
    rows = (clusters + 1e-4 * _rows(60, 1)).float().requires_grad_()
    found = squared_distances(rows, rows)
    exact = _by_differences(rows.double(), rows.double())
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=0.0)
    assert float(found.diagonal().abs().max().detach()) == 0
    apart = ~torch.eye(60, dtype=torch.bool)
    weight = torch.rand(60, 60, generator=torch.Generator().manual_seed(0))
    got, wanted = (
        torch.autograd.grad((s[apart].sqrt() * weight[apart]).sum(), rows)[0]
        for s in (found, exact)
    )
    assert float((got - wanted).norm() / wanted.norm()) < 1e-5


def test_equal_rows_are_at_distance_zero_with_gradient_zero():
    rows = _rows(1, 0).expand(5, D).float().requires_grad_()
    found = squared_distances(rows, rows)
    assert float(found.detach().abs().max()) == 0
    (grad,) = torch.autograd.grad(found.sum(), rows)
    assert float(grad.abs().max()) == 0


def test_squared_distances_pass_gradcheck_and_name_wrong_shapes():
    a, b = _rows(5, 0, 3).requires_grad_(), (_rows(4, 0, 3) + 1e-3).requires_grad_()
    assert torch.autograd.gradcheck(squared_distances, (a, b))
    with pytest.raises(ConfigError, match=r"got \(5, 3\) and \(4, 2\)"):
        squared_distances(a, b[:, :2])


# triplets -----------------------------------------------------------------------------------------


def _triplet_loop(z, labels, margin, mining):
    """Every anchor, positive and negative: Schroff et al. 2015."""
    losses_, kinds = [], {"easy": 0, "semi-hard": 0, "hard": 0}
    n = len(z)
    for a, p in itertools.permutations(range(n), 2):
        if labels[a] != labels[p]:
            continue
        d_ap = float((z[a] - z[p]).square().sum())
        for m in range(n):
            if labels[m] == labels[a]:
                continue
            d_an = float((z[a] - z[m]).square().sum())
            kind = "hard" if d_an <= d_ap else "semi-hard" if d_an < d_ap + margin else "easy"
            kinds[kind] += 1
            if mining in (kind, "all") and d_ap - d_an + margin > 0:
                losses_.append(d_ap - d_an + margin)
    if mining == "batch-hard":
        losses_ = []
        for a in range(n):
            d = (z[a] - z).square().sum(1)
            same = torch.tensor([labels[j] == labels[a] and j != a for j in range(n)])
            other = torch.tensor([labels[j] != labels[a] for j in range(n)])
            if same.any() and other.any():
                value = float(d[same].max() - d[other].min() + margin)
                losses_ += [value] if value > 0 else []
    return (sum(losses_) / len(losses_) if losses_ else 0.0), kinds


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all", "batch-hard"])
def test_triplet_equals_a_loop_over_all_triplets(mining, margin):
    z = _rows(8, 5, 3)
    wanted, kinds = _triplet_loop(z, LABELS.tolist(), margin, mining)
    assert float(losses.triplet(z, LABELS, margin=margin, mining=mining)) == pytest.approx(
        wanted, rel=1e-9
    )
    found = triplets(z, LABELS, margin=margin, mining=mining)
    assert [int(found.easy), int(found.semi_hard), int(found.hard)] == list(kinds.values())


@pytest.mark.parametrize("n", [300, 3000])
@pytest.mark.parametrize("margin", [0.5, 0.02, 1e-3])
@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all"])
def test_triplets_of_long_rows_keep_their_digits(mining, margin, n):
    """float32 against the float64 sum over the same triplets, for two anchors of many negatives."""
    rows = _rows(n, 0, 8)
    labels = torch.arange(n)
    labels[1] = labels[0]
    found = []
    for dtype in (torch.float32, torch.float64):
        z = rows.float().to(dtype).requires_grad_()
        sums = triplets(z, labels, margin=margin, mining=mining)
        (grad,) = torch.autograd.grad(sums.loss / sums.active.clamp_min(1), z)
        found.append((float((sums.loss / sums.active.clamp_min(1)).detach()), grad.double()))
    d = torch.cdist(rows.float().double(), rows.float().double()).square()
    d_ap, d_an = d[0, 1], torch.cat([d[0, 2:], d[1, 2:]])
    chosen = {
        "semi-hard": (d_an > d_ap) & (d_an < d_ap + margin),
        "hard": d_an <= d_ap,
        "all": d_an < d_ap + margin,
    }[mining]
    assert bool(chosen.any()) or (n == 300 and margin == 1e-3)
    wanted = float((d_ap - d_an + margin)[chosen].mean()) if bool(chosen.any()) else 0.0
    assert found[1][0] == pytest.approx(wanted, rel=1e-9)
    assert found[0][0] == pytest.approx(wanted, rel=2e-5, abs=1e-6)
    assert float((found[0][1] - found[1][1]).norm()) <= 1e-3 * float(found[1][1].norm())


@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all", "batch-hard"])
def test_triplet_passes_gradcheck(mining):
    z = _rows(8, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: losses.triplet(x, LABELS, margin=0.5, mining=mining), (z,)
    )


@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all", "batch-hard"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_a_triplet_the_loss_is_zero_with_a_gradient(mining, labels):
    z = _rows(3, 0).requires_grad_()
    loss = losses.triplet(z, torch.tensor(labels), mining=mining)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool(z.grad.isfinite().all())


def test_a_collapse_costs_the_margin_and_semi_hard_mining_finds_nothing():
    z = F.normalize(torch.ones(6, D, dtype=torch.float64), dim=1)
    labels = torch.arange(6) % 2
    for mining in ("hard", "all", "batch-hard"):
        assert float(losses.triplet(z, labels, mining=mining)) == pytest.approx(0.2)
    assert float(losses.triplet(z, labels, mining="semi-hard")) == 0


def test_bad_arguments_are_named():
    z = _rows(4, 0)
    with pytest.raises(ConfigError, match="margin must be above 0"):
        losses.triplet(z, torch.arange(4), margin=0)
    with pytest.raises(ConfigError, match="margin must be above 0"):
        losses.margin_contrastive(z, z, torch.ones(4, dtype=torch.bool), margin=-1)
    with pytest.raises(ConfigError, match="did you mean 'semi-hard'"):
        losses.triplet(z, torch.arange(4), mining="semihard")
    with pytest.raises(ConfigError, match="unknown reduction"):
        losses.sup_con(z, torch.arange(4), reduction="mean")
    with pytest.raises(ConfigError, match="N labels are needed"):
        losses.sup_con(z, torch.arange(3))
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        losses.sup_con(z, torch.arange(4), temperature=-0.1)
    with pytest.raises(ConfigError, match="pairs"):
        losses.margin_contrastive(z, z, torch.ones(3, dtype=torch.bool))


def test_a_row_that_is_not_a_number_stays_visible():
    z = _rows(4, 0)
    z[1] = float("nan")
    labels = torch.tensor([0, 0, 1, 1])
    assert math.isnan(float(losses.sup_con(z, labels)))
    assert math.isnan(float(losses.nt_xent(z[:2], z[2:])))


@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all", "batch-hard"])
def test_no_mining_hides_what_is_not_a_number(mining):
    z = _rows(8, 0) * float("nan")
    assert math.isnan(float(losses.triplet(z, LABELS, mining=mining)))


@pytest.mark.parametrize("same", [True, False])
def test_margin_shows_what_is_not_a_number_and_refuses_no_pairs(same):
    z = _rows(2, 0)
    bad = z * torch.tensor([[1.0], [float("nan")]])
    assert math.isnan(float(losses.margin_contrastive(bad, z.flip(0), torch.tensor([same, same]))))
    with pytest.raises(ConfigError, match="pairs"):
        losses.margin_contrastive(z[:0], z[:0], torch.ones(0, dtype=torch.bool))
    with pytest.raises(ConfigError, match="labels are needed"):
        losses.triplet(z[:0], torch.arange(0), mining="batch-hard")


def test_half_precision_is_summed_in_float32():
    a, b = (200 * torch.ones(2, 8, dtype=torch.float16) * s for s in (1, -1))
    assert float(losses.margin_contrastive(a, b, torch.tensor([True, True]))) == pytest.approx(
        0.5 * 8 * 400**2
    )


# triplets on similarities -------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
def test_the_triplet_on_similarities_is_half_that_on_distances_at_twice_the_margin(margin):
    a, p, n = (_rows(20, seed) for seed in range(3))
    found = losses.triplet_of_similarities((a * p).sum(1), (a * n).sum(1), margin=margin)
    distances = (a - p).square().sum(1) - (a - n).square().sum(1)
    wanted = (distances + 2 * margin).clamp_min(0).mean() / 2
    torch.testing.assert_close(found, wanted)


def test_the_triplet_on_similarities_pulls_the_positive_and_pushes_the_negative():
    """The sign that surveys print the other way round: descent must raise s_p and lower s_n."""
    positive = torch.tensor([0.1, 0.4], requires_grad=True)
    negative = torch.tensor([0.3, 0.5], requires_grad=True)
    loss = losses.triplet_of_similarities(positive, negative)
    slopes = torch.autograd.grad(loss, [positive, negative])
    assert slopes[0].tolist() == [-0.5, -0.5]
    assert slopes[1].tolist() == [0.5, 0.5]
    far = losses.triplet_of_similarities(torch.tensor([0.9]), torch.tensor([0.1]))
    assert float(far) == 0
    with pytest.raises(ConfigError, match="N > 0, are needed"):
        losses.triplet_of_similarities(positive, negative[:1])
    with pytest.raises(ConfigError, match="margin must be above 0"):
        losses.triplet_of_similarities(positive, negative, margin=0.0)
