"""InstDisc: its noise, its Z, its memory and its proximal term."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import N, batch, encoder, made
from cases import random as _random
from torch.nn import functional as F

from tellapart import objectives
from tellapart.errors import ConfigError
from tellapart.objectives import InstDiscOptions, instdisc
from tellapart.training import presets
from tellapart.training.trainer import Trainer


@pytest.fixture
def parts(digits):
    return digits.split("train").subset(range(0, 200)), encoder()


def _made(name, parts):
    return made(name, *parts)


def _batch(source, index=None):
    return batch(source, 1, index)


def _loss(objective, network, given):
    return objective.loss(objective.embed(network, given), given, _random())


def _noise(parts, seed=0, **options):
    objective = objectives.build("instdisc", InstDiscOptions(loss="nce", **options), 0)
    objective.attach(parts[1], parts[0])
    index = torch.tensor([0, 5, 6, 199, 77])
    return index, objective._noise(index, torch.Generator().manual_seed(seed))


def test_shared_noise_without_the_batch_is_uniform_over_the_rest(parts):
    index, noise = _noise(parts, negatives=200_000)
    counts = torch.bincount(noise, minlength=200)
    assert counts[index].sum() == 0
    rest = counts[counts > 0].double()
    assert len(rest) == 195
    assert float((rest / rest.mean() - 1).abs().max()) < 0.15


def test_noise_per_instance_never_draws_its_own_positive(parts):
    index, noise = _noise(parts, negatives=4000, noise="instance")
    assert noise.shape == (5, 4000)
    assert not bool((noise == index[:, None]).any())
    assert set(noise[0].tolist()) == set(range(200)) - {0}


def test_noise_may_hold_the_positive_where_asked(parts):
    index, noise = _noise(parts, negatives=4000, exclude_positive=False)
    assert set(index.tolist()) <= set(noise.tolist())
    index, noise = _noise(parts, negatives=4000, exclude_positive=False, noise="instance")
    assert bool((noise == index[:, None]).any())


def test_a_batch_of_everything_leaves_no_noise_to_draw(parts):
    objective = objectives.build("instdisc", InstDiscOptions(loss="nce"), 0)
    objective.attach(parts[1], parts[0])
    with pytest.raises(ConfigError, match="no instance is left to draw noise from"):
        objective._noise(torch.arange(200), _random())


def test_z_of_random_rows_has_its_analytic_value(digits):
    """Z / n = exp(1 / (2 d tau^2)) for random unit rows, about 2.219 at d = 128 and tau = 0.07."""
    objective = objectives.build("instdisc", InstDiscOptions(loss="nce"), 0)
    objective.bank = objectives.instdisc.MemoryBank(20_000, 128, generator=_random())
    z = F.normalize(torch.randn(256, 128, generator=_random().manual_seed(2)), dim=1)
    log_z = objective._estimate_log_z(z @ objective.bank.rows[::5].T)
    assert math.exp(float(log_z)) / 20_000 == pytest.approx(2.219, rel=0.03)


def test_frozen_z_is_the_mean_of_the_first_batches_and_then_constant(parts):
    source, encoder = parts
    objective = objectives.build(
        "instdisc", InstDiscOptions(loss="nce", z="frozen", z_batches=2, negatives=64), 0
    )
    objective.attach(encoder, source)
    seen, single = [], []
    for step in range(4):
        batch = _batch(source, torch.arange(step * N, step * N + N))
        random = torch.Generator().manual_seed(step)
        if step < 2:
            fresh = objectives.build(
                "instdisc", InstDiscOptions(loss="nce", z="frozen", negatives=64), 0
            )
            fresh.bank = copy.deepcopy(objective.bank)
            single.append(
                float(fresh.loss(fresh.embed(encoder, batch), batch, random).writes["log_z"])
            )
            random.manual_seed(step)
        out = objective.loss(objective.embed(encoder, batch), batch, random)
        objective.after_step(encoder, out)
        seen.append(float(objective.log_z))
    assert seen[0] == pytest.approx(single[0], rel=1e-5)
    assert math.exp(seen[1]) == pytest.approx(
        (math.exp(single[0]) + math.exp(single[1])) / 2, rel=1e-4
    )
    assert seen[1] == seen[2] == seen[3]


def test_average_z_follows_the_encoder(parts):
    source, encoder = parts
    objective = objectives.build(
        "instdisc", InstDiscOptions(loss="nce", negatives=64, z_momentum=0.5), 0
    )
    objective.attach(encoder, source)
    one = F.normalize(torch.ones(1, 8), dim=1)
    objective.bank.fill(torch.arange(200), one.expand(200, 8))
    wanted = None
    for sign in (1.0, -1.0, -1.0):
        out = objective.loss({"z": (sign * one).expand(N, 8)}, _batch(source), _random())
        objective.after_step(encoder, out)
        now = 200 * math.exp(sign / 0.07)
        wanted = now if wanted is None else 0.5 * wanted + 0.5 * now
        assert float(objective.log_z) == pytest.approx(math.log(wanted), rel=1e-4)


def test_the_proximal_term_and_the_bank_momentum_are_two_things(parts):
    source, encoder = parts
    plain, prox = (
        _made("softmax", parts),
        objectives.build("instdisc", InstDiscOptions(temperature=0.1, proximal=2.0), 0),
    )
    prox.attach(encoder, source)
    batch = _batch(source)
    a, b = _loss(plain, encoder, batch), _loss(prox, encoder, batch)
    moved = (a.writes["z"] - plain.bank.rows[batch.index]).square().sum(1).mean()
    torch.testing.assert_close(b.loss - a.loss, 2 * moved)
    frozen = objectives.build("instdisc", InstDiscOptions(bank_momentum=0.0), 0)
    frozen.attach(encoder, source)
    frozen.after_step(encoder, a)
    torch.testing.assert_close(frozen.bank.rows[batch.index], a.writes["z"])


def test_a_bank_started_by_the_encoder_holds_its_embeddings(parts):
    source, encoder = parts
    objective = _made("softmax, started by the encoder", parts)
    torch.testing.assert_close(
        objective.bank.rows, encoder(source.read(torch.arange(200)).float() / 255).detach()
    )


def test_a_bank_started_by_a_batchnorm_takes_any_number_of_images(digits):
    """One more than a batch of the first pass: the last row is no batch of its own."""
    source = digits.subset(np.arange(instdisc.FIRST_PASS_BATCH + 1))
    config = dataclasses.replace(presets.instdisc_digits(), steps=1, batch_size=8)
    assert Trainer("instdisc", config, source).objective.bank.rows.norm(dim=1).min() > 0.99


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1),
        ("negatives", 0),
        ("z_momentum", 1.0),
        ("proximal", -1),
        ("bank_momentum", 1.0),
    ],
)
def test_options_outside_their_range_are_named(field, value):
    with pytest.raises(ConfigError, match=f"--objective.{field.replace('_', '-')}"):
        InstDiscOptions(**{field: value})


def test_a_loss_before_attach_is_an_error(parts):
    objective = objectives.build("instdisc", InstDiscOptions(), 0)
    with pytest.raises(ConfigError, match="attach"):
        objective.loss({"z": torch.ones(N, 8)}, _batch(parts[0]), _random())
