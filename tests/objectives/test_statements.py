"""The numbers and equalities that the pages of the methods state.

Of their sections Relations, Chance and Good to know; `test_every_stated_number_has_a_test` fails
where a page states another one.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path

import pytest
import torch
from cases import encoder
from cases import random as _random
from torch import nn
from torch.nn import functional as F

from tellapart import objectives
from tellapart.functional import losses, tiled
from tellapart.functional.label_losses import sup_con_anchors
from tellapart.objectives import (
    Batch,
    CPCOptions,
    InstDiscOptions,
    MarginOptions,
    MoCoOptions,
    NCEOptions,
    SimCSEOptions,
    SpreadOptions,
    SupConOptions,
    TripletOptions,
)
from tellapart.objectives.memory import MemoryBank

ROOT = Path(__file__).resolve().parents[2]
TAU = 0.2


def _rows(n, seed, d=8):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=draw, dtype=torch.float64), dim=1)


A, B = _rows(11, 0), _rows(11, 1)


@pytest.fixture
def parts(digits):
    return digits.split("train").subset(range(0, 200)), encoder(dtype=torch.float64)


def _loss(objective, a, b=None, index=None, labels=None):
    """The loss of an objective at given embeddings."""
    index = torch.arange(len(a)) if index is None else index
    embedded = {"z": a} | ({} if b is None else {"z1": b})
    return objective.loss(embedded, Batch([], index, labels), _random()).loss


def _build(method, options, parts=None):
    objective = objectives.build(method, options, 0)
    if parts is not None:
        objective.attach(parts[1], parts[0])
    return objective


# the sentences ------------------------------------------------------------------------------------

NUMBERS = {
    "instdisc": ["1/(2 D tau^2)", "exp(1/tau - 1/(2 D tau^2))", "7.2 x 10^5", "ln S",
                 "(m+1) ln(m+1) - m ln m", "Z = S exp(1/tau)", "N - 1 negatives"],
    "exemplar": ["ln S", "S x D"],
    "spread": ["ln N + (N - 1) ln(N / (N - 1))", "2N - 1", "N - 1 negatives"],
    "moco": ["ln(K + 1)"],
    "simclr": ["twice", "ln N - loss", "ln(2N - 1)", "N - 1 other images"],
    "supcon": ["tau / 0.07", "L_in is at most L_out", "ln(V N - 1)", "(d_p - d_n) / (2 tau)",
               "4 tau ln 2", "2.77 tau"],
    "margin": ["margin^2 / 4", "the force is margin - d"],
    "triplet": ["the loss equals the margin"],
    "nce": ["order 1/k", "u = exp(1/tau) / Z", "(k + 1) ln(k + 1) - k ln k", "Z = S exp(1/tau)"],
    "cpc": ["96.9 %", "ln(M + 1)", "not a bound"],
    "simcse": ["ln N", "ln(2N - 1 + e^weight)", "ln 2N"],
}  # fmt: skip
"""The statements of each page that this file tests."""


@pytest.mark.parametrize("method", objectives.METHODS)
def test_every_stated_number_has_a_test(method):
    """The listed numbers stand on the page, and no other formula does in these sections."""
    text = " ".join((inspect.getdoc(objectives.objective_class(method)) or "").split())
    checked = re.split(r" (?=Good to know: )| (?=Published: )", text)[1]
    for part in sorted(NUMBERS[method], key=len, reverse=True):  # shorter ones may be inside
        assert part in checked, part
        checked = checked.replace(part, "")
    known = (
        r"\((?:v1|eq|sec)[^)]*\)|arXiv|0\.07\b|D = 128|2 tau\b|\(67\.4 against 78\.7 %\)|`[^`]*`"
    )
    rest = re.sub(known, "", checked)
    assert not re.search(r"\d+(\.\d+)? %|\bln\b|\bexp\(", rest), rest


# instdisc -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "tau"), [(64, 0.1), (128, 0.07), (128, 0.2)])
def test_random_rows_start_above_chance_by_1_over_2_d_tau2(d, tau):
    bank = MemoryBank(20_000, d, generator=_random()).rows
    query = _rows(50, 3, d).float()
    found = losses.instance_softmax(query, bank, torch.arange(50), temperature=tau)
    # the similarity with the own random row is 0 on average, with this deviation of the mean
    noise = 4 / tau / math.sqrt(50 * d)
    assert float(found) - math.log(20_000) == pytest.approx(1 / (2 * d * tau**2), abs=noise + 0.1)


def test_z_of_coinciding_outputs_is_a_stated_multiple_of_that_of_spread_ones():
    d, tau = 128, 0.07
    rows = _rows(4000, 0, d)
    spread = tiled.logsumexp(rows[:50], rows[50:], temperature=tau).logsumexp(0) - math.log(50)
    point = rows[:1].expand(3950, d)
    together = tiled.logsumexp(point[:1], point, temperature=tau)[0]
    wanted = 1 / tau - 1 / (2 * d * tau**2)
    assert float(together - spread) == pytest.approx(wanted, abs=0.05)
    assert math.exp(wanted) == pytest.approx(7.2e5, rel=0.01)


def test_instdisc_with_the_batch_as_bank_is_info_nce(parts):
    found = losses.instance_softmax(A, B, torch.arange(len(A)), temperature=TAU)
    torch.testing.assert_close(found, losses.info_nce(A, B, temperature=TAU))
    one = losses.info_nce(A[:1], B[:1], B[1:], temperature=TAU)  # N - 1 negatives
    alone = losses.instance_softmax(A[:1], B, torch.arange(1), temperature=TAU)
    torch.testing.assert_close(one, alone)


def test_instdisc_with_trained_rows_is_exemplar_and_with_classes_a_classifier(parts):
    bank = _build("instdisc", InstDiscOptions(temperature=TAU), parts)
    trained = _build("exemplar", objectives.ExemplarOptions(temperature=TAU), parts)
    with torch.no_grad():
        trained.weight.copy_(bank.bank.rows)
    index = torch.arange(len(A))
    torch.testing.assert_close(
        _loss(bank, A, index=index).double(), _loss(trained, A, index=index).double()
    )
    classes = torch.arange(len(A)) % 3
    linear = nn.Linear(8, 3, bias=False, dtype=torch.float64)
    found = losses.instance_softmax(A, linear.weight, classes, temperature=TAU)
    torch.testing.assert_close(found, F.cross_entropy(linear(A) / TAU, classes))


def test_instdisc_with_a_queue_in_place_of_the_bank_is_moco(parts):
    """The positive beside the queue, as one bank."""
    queue, key = _rows(30, 5), B
    wanted = [
        losses.instance_softmax(
            A[i : i + 1], torch.cat([key[i : i + 1], queue]), torch.zeros(1).long(), temperature=TAU
        )
        for i in range(len(A))
    ]
    found = losses.info_nce(A, key, queue, temperature=TAU)
    torch.testing.assert_close(found, torch.stack(wanted).mean())


def test_a_z_frozen_before_a_collapse_leaves_another_loss_at_collapse(parts):
    """nce: chance holds at Z = S exp(1/tau); a Z of spread outputs gives far more."""
    source, _ = parts
    found = {}
    for z in ("average", "frozen"):
        objective = _build("instdisc", InstDiscOptions(loss="nce", z=z, negatives=64), parts)
        point = _rows(1, 9)
        objective.after_step(parts[1], objective.loss({"z": A}, _batch(len(A)), _random()))
        objective.bank.fill(torch.arange(len(source)), point.expand(len(source), 8))
        for _ in range(1500 if z == "average" else 1):
            out = objective.loss({"z": point.expand(11, 8)}, _batch(11), _random())
            objective.after_step(parts[1], out)
        found[z] = float(out.loss), objective.chance(11)
    assert found["average"][0] == pytest.approx(found["average"][1], rel=1e-3)
    assert found["frozen"][0] > 2 * found["frozen"][1]


def _batch(n):
    return Batch([], torch.arange(n))


# spread -------------------------------------------------------------------------------------------


def test_the_first_term_of_spread_is_info_nce_of_views_and_originals():
    spread = losses.invariant_spread(A, B, temperature=TAU)
    own = torch.arange(len(A))[:, None]
    _, repulsion = tiled.repulsion(A, A, own, temperature=TAU)
    torch.testing.assert_close(spread - repulsion.mean(), losses.info_nce(B, A, temperature=TAU))


def test_the_first_term_of_the_released_spread_has_the_value_of_simclr_and_another_gradient():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    rows = torch.cat([a, b])
    own = torch.arange(22)
    skip = torch.stack([own, own.roll(11)], 1)
    _, repulsion = tiled.repulsion(rows, rows.detach(), skip, temperature=TAU, exclude_self=True)
    first = losses.invariant_spread_released(a, b, temperature=TAU) - repulsion.mean()
    simclr = losses.nt_xent(a, b, temperature=TAU)
    torch.testing.assert_close(first, simclr)
    (one,), (two,) = torch.autograd.grad(first, a), torch.autograd.grad(simclr, a)
    assert float((one - two).norm() / two.norm()) > 0.1  # the keys are constants


def test_spread_stays_finite_where_the_released_code_does_not():
    a = torch.eye(6, dtype=torch.float64).requires_grad_()
    loss = losses.invariant_spread_released(a, a, temperature=0.005)
    loss.backward()
    assert bool(loss.isfinite() & a.grad.isfinite().all())


# simclr, supcon -----------------------------------------------------------------------------------


def test_simclr_of_the_authors_is_twice_this_loss():
    """Chen et al.'s code: cross-entropy of both directions, each averaged over N, added."""
    hidden = 1e9 * torch.eye(11, dtype=torch.float64)
    total = 0
    for one, two in ((A, B), (B, A)):
        logits = torch.cat([one @ two.T, one @ one.T - hidden], 1) / TAU
        total = total + F.cross_entropy(logits, torch.arange(11))
    torch.testing.assert_close(total, 2 * losses.nt_xent(A, B, temperature=TAU))


def test_simclr_is_supcon_with_a_label_for_every_image(parts):
    simclr = _build("simclr", objectives.SimCLROptions(temperature=TAU))
    for reduction in ("out", "in"):
        supcon = _build("supcon", SupConOptions(temperature=TAU, reduction=reduction))
        torch.testing.assert_close(
            _loss(supcon, A, B, labels=torch.arange(11)), _loss(simclr, A, B)
        )


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_simclr_in_one_direction_is_info_nce_and_lower(temperature):
    both = losses.nt_xent(A, B, temperature=temperature)
    ways = [losses.info_nce(x, y, temperature=temperature) for x, y in ((A, B), (B, A))]
    assert float(both) > float(sum(ways)) / 2


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [4, 64])
def test_ln_n_minus_the_loss_of_simclr_is_below_the_information(rho, n):
    """On correlated Gaussians, with the best critic there is: their density ratio."""
    draw = torch.Generator().manual_seed(0)
    information, values = -0.5 * math.log(1 - rho**2), []
    for _ in range(400):
        x = torch.randn(n, generator=draw, dtype=torch.float64)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, generator=draw, dtype=torch.float64)
        z = torch.cat([x, y])
        u, v = z[:, None], z[None]
        s = (2 * rho * u * v - rho**2 * (u**2 + v**2)) / (2 * (1 - rho**2)) - 0.5 * math.log(
            1 - rho**2
        )
        s = s.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        own = torch.arange(2 * n)
        values.append(float((s.logsumexp(1) - s[own, own.roll(n)]).mean()))
    limit = objectives.build("simclr", objectives.SimCLROptions(), 0).information_limit(n)
    assert limit == math.log(n)
    assert limit - sum(values) / len(values) <= information + 0.02


def test_supcon_in_is_at_most_out_and_the_authors_scale_is_not_applied():
    labels = torch.arange(11) % 3
    for temperature in (0.05, 0.1, 0.5):
        inside, outside = (
            losses.sup_con(A, labels, temperature=temperature, reduction=r) for r in ("in", "out")
        )
        assert float(inside) <= float(outside)
    z = F.normalize(torch.ones(20, 8, dtype=torch.float64), dim=1)
    # with the factor tau / 0.07 the value at collapse would depend on tau
    for temperature in (0.05, 0.5):
        found = losses.sup_con(z, torch.arange(20) % 4, temperature=temperature)
        assert float(found) == pytest.approx(math.log(19))


@pytest.mark.parametrize("views", [2, 3])
def test_supcon_has_its_chance_for_any_number_of_views(views):
    z = F.normalize(torch.ones(7, views, 8, dtype=torch.float64), dim=2)
    found = losses.sup_con(z, torch.arange(7) % 3)
    chance = objectives.build("supcon", SupConOptions(views=views), 0).chance(7)
    assert float(found) == pytest.approx(chance) == pytest.approx(math.log(views * 7 - 1))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_supcon_with_one_positive_and_one_negative_is_a_soft_triplet(temperature):
    for seed in range(5):
        z = _rows(3, seed)
        values, _ = sup_con_anchors(
            z, torch.tensor([0, 0, 1]), temperature=temperature, reduction="out"
        )
        d_p, d_n = (z[0] - z[1]).square().sum(), (z[0] - z[2]).square().sum()
        torch.testing.assert_close(values[0], F.softplus((d_p - d_n) / (2 * temperature)))
    x = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)  # d_p - d_n
    soft = F.softplus(x / (2 * temperature))
    (slope,) = torch.autograd.grad(soft, x)
    assert float(slope) == pytest.approx(1 / (4 * temperature))
    margin = float(soft.detach()) / float(slope)  # (d_p - d_n + margin) / (4 tau)
    assert margin == pytest.approx(4 * temperature * math.log(2))
    assert margin / temperature == pytest.approx(2.77, abs=0.005)


# margin, triplet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_a_collapse_of_margin_costs_a_quarter_of_the_squared_margin(margin):
    z = torch.ones(6, 2, dtype=torch.float64)
    found = _loss(_build("margin", MarginOptions(margin=margin)), z, z)
    assert float(found) == pytest.approx(margin**2 / 4)


@pytest.mark.parametrize("gap", [0.7, 1e-2, 1e-4, 1e-6])
def test_the_force_of_a_dissimilar_pair_is_margin_less_its_distance(gap):
    """In float32, down to near-duplicates: x_0 and y_1 are a dissimilar pair at distance `gap`."""
    x = torch.tensor([[0.0, 1.0, 0.0], [5.0, 0.0, 0.0]]).requires_grad_()
    y = torch.tensor([[0.0, 1.0, 5.0], [gap, 1.0, 0.0]])
    loss = _loss(_build("margin", MarginOptions()), x, y)
    (grad,) = torch.autograd.grad(loss, x)
    attraction = (x[0] - y[0]).detach() / 4  # half of the mean over two similar pairs
    force = 4 * (grad[0] - attraction)
    torch.testing.assert_close(force, torch.tensor([1 - gap, 0.0, 0.0]), rtol=1e-3, atol=1e-3)


def test_a_dissimilar_pair_at_distance_zero_has_no_force():
    x = torch.tensor([[0.0, 1.0, 0.0], [5.0, 0.0, 0.0]]).requires_grad_()
    y = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, 0.0]])
    (grad,) = torch.autograd.grad(_loss(_build("margin", MarginOptions()), x, y), x)
    torch.testing.assert_close(grad[0], (x[0] - y[0]).detach() / 4)


def test_margin_weighs_similar_and_dissimilar_pairs_alike():
    a, b = 0.3 * _rows(5, 0, 2), 0.3 * _rows(5, 1, 2)
    out = _build("margin", MarginOptions()).loss({"z": a, "z1": b}, _batch(5), _random())
    assert float(out.loss) == pytest.approx(float(out.logs["similar"] + out.logs["dissimilar"]) / 2)


def test_a_collapse_of_hard_triplets_costs_the_margin():
    z = F.normalize(torch.ones(8, 8, dtype=torch.float64), dim=1)
    labels = torch.arange(8) % 4
    for mining in ("hard", "all", "batch-hard"):
        objective = _build("triplet", TripletOptions(margin=0.3, mining=mining))
        assert float(_loss(objective, z, z, labels=labels)) == pytest.approx(0.3)
        assert objective.chance(8) == 0.3
    assert _build("triplet", TripletOptions()).chance(8) is None


# moco, exemplar, nce ------------------------------------------------------------------------------


def test_the_loss_of_moco_is_info_nce_with_the_queue(parts):
    objective = _build("moco", MoCoOptions(queue=30, temperature=TAU), parts)
    objective.queue.double()
    found = objective.loss({"z": A, "key": B}, _batch(11), _random()).loss
    wanted = losses.info_nce(A, B, objective.queue.rows, temperature=TAU)
    torch.testing.assert_close(found, wanted)
    assert objective.chance(11) == math.log(31)


def test_exemplar_holds_a_weight_for_every_image(parts):
    objective = _build("exemplar", objectives.ExemplarOptions(), parts)
    assert objective.weight.shape == (200, 8)
    assert objective.weight.requires_grad
    assert "weight" in objective.state_dict()


def test_instdisc_with_nce_is_nce_with_memories_for_words(parts):
    bank = _build("instdisc", InstDiscOptions(loss="nce", negatives=50, temperature=TAU), parts)
    words = _build("nce", NCEOptions(negatives=50, temperature=TAU, noise="uniform"), parts)
    index, noise = torch.arange(11), torch.arange(20, 70)
    with torch.no_grad():
        words.words.copy_(bank.bank.rows)
        words.log_z.fill_(7.0)
    words.noise.draw = lambda *_: noise
    bank._noise = lambda *_: noise
    bank._estimate_log_z = lambda *_: torch.tensor(7.0)
    z = A.float()
    torch.testing.assert_close(_loss(words, z, index=index), _loss(bank, z, index=index))


@pytest.mark.parametrize("noise", ["uniform", "other"])
def test_the_error_of_the_gradient_of_nce_is_of_order_1_over_k(noise):
    """Ten times the draws, a tenth of the error, against maximum likelihood; in expectation."""
    draw = torch.Generator().manual_seed(0)
    s = torch.randn(15, generator=draw, dtype=torch.float64).requires_grad_()
    data = torch.softmax(torch.randn(15, generator=draw, dtype=torch.float64), 0)
    q = torch.softmax(torch.randn(15, generator=draw, dtype=torch.float64), 0)
    q = torch.full_like(q, 1 / 15) if noise == "uniform" else q
    (exact,) = torch.autograd.grad(s.logsumexp(0) - (data * s).sum(), s)
    log_z, errors = s.detach().logsumexp(0), []
    for k in (100, 1000, 10_000):
        u = (s - log_z).exp()
        loss = (data * (1 + k * q / u).log()).sum() + k * (q * (1 + u / (k * q)).log()).sum()
        (found,) = torch.autograd.grad(loss, s)
        errors.append(float((found - exact).norm()))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(("size", "k"), [(40, 7), (1000, 256)])
def test_nce_with_uniform_noise_has_the_closed_form_at_z_s_exp_1_over_tau(size, k):
    """The Z of least loss of a collapse is S exp(1/tau): u = 1/S."""
    uniform = torch.full((size,), -math.log(size), dtype=torch.float64)
    best = losses.nce_collapse(k, None, uniform)
    assert best == pytest.approx((k + 1) * math.log(k + 1) - k * math.log(k), rel=1e-9)
    for log_u in (-math.log(size) - 1, -math.log(size) + 1):
        assert losses.nce_collapse(k, log_u, uniform) > best


# cpc ----------------------------------------------------------------------------------------------


class Symbols(nn.Module):
    """An encoder whose frames and contexts are what it is given."""

    width = context_width = 2
    hop = 1

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def sequence(self, x):
        return x, x, torch.full((len(x),), x.shape[1])


def _symbols(options):
    """The mean of ln(M + 1) - loss over pairs of constant sequences of one of two symbols."""
    objective = objectives.build("cpc", options, 0)
    objective.attach(Symbols(), range(2))
    with torch.no_grad():  # the best critic: equal or not
        objective.ahead.weight.copy_(30 * torch.eye(2))
    values = []
    for pair in ([0, 0], [0, 1], [1, 0], [1, 1]):
        z = F.one_hot(torch.tensor(pair), 2).float()[:, None].expand(2, 20, 2)
        given = Batch([z], torch.arange(2))
        out = objective.loss(objective.embed(Symbols(), given), given, _random())
        values.append(objective.chance(2) - float(out.loss.detach()))
    return sum(values) / 4


def test_chance_minus_the_loss_of_cpc_is_no_bound_of_the_information():
    """Two sequences, each of one of two symbols: I = ln 2; with draws of the other it says 2.4."""
    found = _symbols(CPCOptions(steps=1, negatives=128, draw="others"))
    assert found == pytest.approx(math.log(129) / 2, rel=1e-2)
    assert found > 3 * math.log(2)
    assert objectives.build("cpc", CPCOptions(), 0).information_limit(64) is None


@pytest.mark.parametrize("negatives", [50, 400])
def test_the_true_frame_is_left_out_of_the_negatives_of_cpc(negatives):
    """A sequence of two equal frames: about half of the draws hit the true one."""
    options = CPCOptions(steps=1, negatives=negatives, draw="sequence")
    objective = objectives.build("cpc", options, 0)
    objective.attach(Symbols(), range(50))
    given = Batch([torch.ones(50, 2, 2)], torch.arange(50))
    found = float(objective.loss(objective.embed(Symbols(), given), given, _random()).loss.detach())
    assert found == pytest.approx(math.log(negatives / 2 + 1), abs=0.05)
    assert found < objective.chance(50) - 0.5


def test_cpc_has_its_chance_up_to_draws_of_the_true_frame():
    """All frames equal: ln(M + 1 - hits), a little below ln(M + 1)."""
    objective = objectives.build("cpc", CPCOptions(steps=2, negatives=64), 0)
    objective.attach(Symbols(), range(40))
    z = torch.ones(40, 30, 2)
    given = Batch([z], torch.arange(40))
    found = float(objective.loss(objective.embed(Symbols(), given), given, _random()).loss.detach())
    assert math.log(63) < found <= objective.chance(40) == math.log(65)


def test_the_speaker_of_cpc_with_negatives_of_the_own_sequence_is_our_study():
    rows = json.loads((ROOT / "studies" / "cpc.json").read_text())["rows"]
    assert round(100 * rows["12 steps, the own sequence alone"]["speaker"], 1) == 96.9


# simcse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.7, -1.0, 3.0])
def test_simcse_has_its_chance_with_any_weight(weight):
    z = F.normalize(torch.ones(9, 8, dtype=torch.float64), dim=1)
    objective = objectives.build("simcse", SimCSEOptions(hard_negative_weight=weight), 0)
    objective.columns = 3
    found = objective.loss({"z": z, "z1": z, "z2": z}, _batch(9), _random()).loss
    assert float(found) == pytest.approx(objective.chance(9))
    assert objective.chance(9) == pytest.approx(math.log(17 + math.exp(weight)))
    if weight == 0:
        assert objective.chance(9) == pytest.approx(math.log(18))
    objective.columns = 1
    assert float(_loss(objective, z, z)) == pytest.approx(objective.chance(9))
    assert objective.chance(9) == math.log(9)


def test_simcse_is_info_nce_in_one_direction():
    objective = objectives.build("simcse", SimCSEOptions(temperature=TAU), 0)
    torch.testing.assert_close(_loss(objective, A, B), losses.info_nce(A, B, temperature=TAU))
    assert objective.information_limit(11) == math.log(11)
    objective.columns = 3
    assert objective.information_limit(11) is None


# spread as an objective ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("n", [2, 11, 300])
def test_spread_has_its_chance(form, n):
    z = F.normalize(torch.ones(n, 8, dtype=torch.float64), dim=1)
    objective = objectives.build("spread", SpreadOptions(loss=form), 0)
    rows = n if form == "paper" else 2 * n - 1
    wanted = math.log(rows) + (rows - 1) * math.log(rows / (rows - 1))
    assert float(_loss(objective, z, z)) == pytest.approx(wanted)
    assert objective.chance(n) == pytest.approx(wanted)


# mutual information -------------------------------------------------------------------------------


def test_js_is_not_steadier_than_nwj_in_our_study():
    rows = json.loads((ROOT / "studies" / "mutual_information.json").read_text())
    js, nwj = (rows[name]["gaussian"]["6"]["variance"] for name in ("js", "nwj"))
    assert (round(js), round(nwj)) == (21, 1)
