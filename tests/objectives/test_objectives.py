"""One contract for every objective, then what is particular to each."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import BY_PLACE, CASES, N, batch, encoder, leak, made
from cases import random as _random
from torch.nn import functional as F

from tellapart import objectives
from tellapart.errors import ConfigError, DataError
from tellapart.functional import losses
from tellapart.objectives import (
    Batch,
    ExemplarOptions,
    InstDiscOptions,
    MarginOptions,
    MoCoOptions,
    NCEOptions,
    SupConOptions,
    TripletOptions,
)
from tellapart.objectives.margin import nearest_by_pixels


@pytest.fixture
def parts(digits):
    return digits.split("train").subset(range(0, 200)), encoder()


def _made(name, parts):
    return made(name, *parts)


def _batch(source, index=None, views=1):
    return batch(source, views, index)


def _loss(objective, network, given):
    return objective.loss(objective.embed(network, given), given, _random())


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_finite_reaches_the_encoder_and_writes_nothing(name, parts):
    source, network = parts
    objective = _made(name, parts)
    before = copy.deepcopy(objective.state_dict())
    given = batch(source, objective.views)
    out = _loss(objective, network, given)
    out.loss.backward()
    assert out.loss.ndim == 0
    assert bool(out.loss.isfinite())
    assert float(network.backbone.linear.weight.grad.abs().sum()) > 0
    assert all(torch.equal(before[k], v) for k, v in objective.state_dict().items())
    assert all(not v.requires_grad for v in [*out.logs.values(), *out.writes.values()])
    assert all(len(v) == N for v in objective.embed(network, given).values())
    assert "z" in out.writes


@pytest.mark.parametrize("name", CASES)
def test_the_state_round_trips(name, parts):
    source, network = parts
    objective, other = _made(name, parts), made(name, source, network, seed=7)
    for first in (0, 40):
        given = batch(source, objective.views, torch.arange(first, first + N))
        objective.after_step(network, _loss(objective, network, given))
    other.load_state_dict(objective.state_dict())
    given = batch(source, objective.views)
    assert torch.equal(_loss(objective, network, given).loss, _loss(other, network, given).loss)


@pytest.mark.parametrize("name", [n for n in CASES if n not in BY_PLACE])
def test_permuting_the_batch_changes_nothing(name, parts):
    source, network = parts
    objective = _made(name, parts)
    order = torch.randperm(N, generator=_random())
    index = torch.arange(3, 3 + N)
    a = _loss(objective, network, batch(source, objective.views, index)).loss
    b = _loss(objective, network, batch(source, objective.views, index[order])).loss
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith(("margin", "cpc"))])
def test_collapse_sits_exactly_at_chance(name, parts):
    source, network = parts
    objective = _made(name, parts)
    point = F.normalize(torch.ones(1, 8), dim=1)
    with torch.no_grad():
        if isinstance(objective, objectives.InstDisc):
            objective.bank.fill(torch.arange(len(source)), point.expand(len(source), 8))
            objective.log_z.fill_(1 / objective.options.temperature + math.log(len(source)))
            objective.z_seen.fill_(5)
        elif isinstance(objective, objectives.Exemplar):
            objective.weight.copy_(point.expand(len(source), 8))
        elif isinstance(objective, objectives.MoCo):
            objective.queue.push(point.expand(50, 8))
        elif isinstance(objective, objectives.NCE):
            objective.words.copy_(point.expand_as(objective.words))
            objective.noise = objectives.nce.AliasTable(torch.ones(len(objective.words)))
            objective.log_z.copy_(
                1 / objective.options.temperature + math.log(len(objective.words))
            )
    given = batch(source, objective.views)
    embedded = {k: point.expand(N, 8) for k in objective.embed(network, given)}
    out = objective.loss(embedded, given, _random())
    if objective.chance(N) is None:  # semi-hard mining finds no triplet there
        assert float(out.loss.detach()) == 0
    else:
        assert float(out.loss.detach()) == pytest.approx(objective.chance(N), rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_one_is_an_error_or_has_a_defined_loss(name, parts):
    source, network = parts
    objective = _made(name, parts)
    given = batch(source, objective.views, torch.tensor([5]))
    if CASES[name][0] in ("simclr", "spread"):
        with pytest.raises(ConfigError, match="a batch of one"):
            _loss(objective, network, given)
    else:
        assert bool(_loss(objective, network, given).loss.isfinite())


@pytest.mark.parametrize("method", objectives.METHODS)
def test_the_options_of_another_method_are_refused(method):
    other = ExemplarOptions() if method != "exemplar" else InstDiscOptions()
    with pytest.raises(ConfigError, match="takes"):
        objectives.build(method, other, 0)
    with pytest.raises(ConfigError, match="did you mean 'instdisc'"):
        objectives.build("instdist", other, 0)


@pytest.mark.parametrize("method", objectives.METHODS)
def test_every_temperature_and_margin_is_checked_and_named(method):
    kind = objectives.OPTIONS[method]
    for field in {"temperature", "margin", "negatives", "queue", "views", "neighbours"} & {
        f.name for f in dataclasses.fields(kind)
    }:
        with pytest.raises(ConfigError, match=f"--objective.{field}"):
            kind(**{field: 0})


# the others ---------------------------------------------------------------------------------------


def test_the_queue_takes_the_keys_after_the_loss_and_the_key_encoder_moves_after_the_step(parts):
    source, network = parts
    objective = objectives.build("moco", MoCoOptions(queue=20, momentum=0.75, temperature=0.01), 0)
    objective.attach(network, source)
    given = batch(source, 2)
    out = _loss(objective, network, Batch([given.views[0]] * 2, given.index))
    queue = objective.queue.rows.clone()
    q = network(given.views[0]).detach()
    wanted = losses.info_nce(
        q, q, queue, temperature=0.01
    )  # were the keys in the queue already: at least ln 2
    torch.testing.assert_close(out.loss.detach(), wanted)
    assert float(wanted) < math.log(2)
    slow = objective.key.backbone.linear.weight.clone()
    with torch.no_grad():
        network.backbone.linear.weight.add_(1.0)
    objective.after_step(network, out)
    torch.testing.assert_close(objective.key.backbone.linear.weight, slow + 0.25)
    torch.testing.assert_close(objective.queue.rows[:N], q)
    assert torch.equal(objective.queue.rows[N:], queue[N:])


def test_symmetric_moco_contrasts_both_ways_with_one_queue(parts):
    source, network = parts
    both = objectives.build("moco", MoCoOptions(queue=30, symmetric=True), 0)
    one = objectives.build("moco", MoCoOptions(queue=30), 0)
    both.attach(network, source)
    one.attach(network, source)
    given = batch(source, 2)
    turned = Batch(given.views[::-1], given.index)
    a, b = (_loss(one, network, g).loss for g in (given, turned))
    out = _loss(both, network, given)
    torch.testing.assert_close(out.loss, (a + b) / 2)
    assert len(out.writes["keys"]) == len(out.writes["other keys"]) == N


def test_a_queue_longer_than_the_data_is_warned_of(parts):
    objective = objectives.build("moco", MoCoOptions(queue=201), 0)
    with pytest.warns(UserWarning, match="larger than the 200 images"):
        objective.attach(parts[1], parts[0])


def test_batchnorm_gives_pairs_away_unless_it_is_split_and_shuffled():
    assert leak(2, shuffle=False) < -0.5  # the pretext is solved though there is nothing to learn
    assert abs(leak(2, shuffle=True)) < 0.1
    assert leak(None, True, 5) == pytest.approx(
        leak(None, False, 5), abs=1e-5
    )  # shuffling alone does nothing


def test_neighbours_by_pixels_are_those_of_a_full_sort(parts):
    source, _ = parts
    x = source.read(torch.arange(200)).float().flatten(1) / 255
    distance = torch.cdist(x, x)
    distance.fill_diagonal_(math.inf)
    near = nearest_by_pixels(source, 5, torch.device("cpu"))
    assert (
        near.sort(1).values == distance.topk(5, largest=False).indices.sort(1).values
    ).float().mean() > 0.99


def test_margin_pairs_are_views_neighbours_or_classes(parts):
    source, network = parts
    given = batch(source, 2)
    labels = torch.from_numpy(source.labels)[given.index]
    similar = {}
    for pairs in ("augmentation", "neighbours", "labels"):
        objective = objectives.build("margin", MarginOptions(pairs=pairs, neighbours=20), 0)
        objective.attach(network, source)
        similar[pairs] = objective._similar(given, given.index)
    assert torch.equal(similar["augmentation"], torch.eye(N, dtype=torch.bool))
    assert torch.equal(similar["labels"], labels[:, None] == labels)
    assert torch.equal(similar["neighbours"], similar["neighbours"].T)
    near = nearest_by_pixels(source, 20, torch.device("cpu"))
    for i in range(N):
        for j in range(N):
            a, b = int(given.index[i]), int(given.index[j])
            wanted = a == b or b in near[a].tolist() or a in near[b].tolist()
            assert bool(similar["neighbours"][i, j]) == wanted


def test_margin_does_not_feel_where_the_map_lies(parts):
    source, network = parts
    objective = _made("margin", parts)
    given = batch(source, 2)
    embedded = objective.embed(network, given)
    here = objective.loss(embedded, given, _random()).loss
    there = objective.loss({k: v + 1000 for k, v in embedded.items()}, given, _random()).loss
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)


def test_an_item_without_a_label_is_a_class_of_its_own(parts):
    source, network = parts
    objective = _made("supcon", parts)
    given = batch(source, 2)
    hidden = given._replace(label=torch.full((N,), -1))
    embedded = objective.embed(network, given)
    alone = objective.loss(embedded, hidden, _random()).loss
    torch.testing.assert_close(
        alone, losses.nt_xent(embedded["z"], embedded["z1"], temperature=0.1)
    )


def test_anchors_without_a_positive_are_counted(parts):
    source, network = parts
    objective = _made("supcon, one view", parts)
    given = batch(source, 1)._replace(label=torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]))
    assert float(_loss(objective, network, given).logs["without_positive"]) == 8


def test_triplet_kinds_are_shares_of_one(parts):
    source, network = parts
    logs = _loss(_made("triplet", parts), network, batch(source, 2)).logs
    assert float(logs["easy"] + logs["semi_hard"] + logs["hard"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("supcon", SupConOptions()),
        ("triplet", TripletOptions()),
        ("nce", NCEOptions(vocabulary="classes")),
        ("margin", MarginOptions(pairs="labels")),
    ],
)
def test_a_method_that_needs_labels_says_so(parts, method, options):
    from tellapart.training.config import TrainConfig
    from tellapart.training.trainer import Trainer

    bare = dataclasses.replace(parts[0], all_labels=None)
    with pytest.raises(DataError, match=f"{method} learns from labels, and digits has none"):
        Trainer(method, TrainConfig(objective=options, threads=1), bare)


def test_words_are_drawn_as_often_as_they_occur(parts):
    source, network = parts
    objective = _made("words, classes, fixed Z", parts)
    counts = np.bincount(source.labels).astype(float) ** 0.75
    np.testing.assert_allclose(
        objective.noise.log_probability.exp().numpy(), counts / counts.sum(), rtol=1e-5
    )
    assert not objective.log_z.requires_grad
    assert made("words", source, network).log_z.requires_grad


# the loss of nce at collapse ----------------------------------------------------------------------


def _collapsed_nce(source, network, options):
    """The objective with every word at one point, and that point for the embeddings."""
    objective = objectives.build("nce", options, 0)
    objective.attach(network, source)
    point = F.normalize(torch.ones(1, 8), dim=1)
    with torch.no_grad():
        objective.words.copy_(point.expand_as(objective.words))
    objective.words.requires_grad_(False)
    return objective, point


def _mean_loss(objective, point, source, batches=40):
    """The mean loss over batches that hold every item of the source."""
    index = torch.arange(len(source))
    given = Batch([], index, torch.from_numpy(source.labels))
    embedded, draw = {"z": point.expand(len(index), 8)}, _random()
    values = [objective.loss(embedded, given, draw).loss for _ in range(batches)]
    return torch.stack(values).mean()


@pytest.mark.parametrize("noise", ["uniform", "unigram"])
@pytest.mark.parametrize("vocabulary", ["instances", "classes"])
@pytest.mark.parametrize("log_z", [None, 0.0, 12.0, 30.0])
def test_nce_with_a_fixed_z_has_its_chance_at_collapse(parts, vocabulary, noise, log_z):
    options = NCEOptions(
        vocabulary=vocabulary, noise=noise, power=0.5, z="fixed", log_z=log_z, negatives=200
    )
    objective, point = _collapsed_nce(*parts, options)
    found = float(_mean_loss(objective, point, parts[0]).detach())
    assert found == pytest.approx(objective.chance(200), rel=5e-3)


@pytest.mark.parametrize("negatives", [7, 64])
@pytest.mark.parametrize("noise", ["uniform", "unigram"])
@pytest.mark.parametrize("vocabulary", ["instances", "classes"])
def test_nce_with_a_learned_z_has_its_chance_where_z_has_adapted(
    parts, vocabulary, noise, negatives
):
    """Only ln Z is trained, from its start: the collapsed loss falls to `chance` and no further."""
    options = NCEOptions(vocabulary=vocabulary, noise=noise, negatives=negatives, temperature=0.3)
    objective, point = _collapsed_nce(*parts, options)
    start = float(_mean_loss(objective, point, parts[0]).detach())
    optimizer = torch.optim.Adam([objective.log_z], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        _mean_loss(objective, point, parts[0], 4).backward()
        optimizer.step()
    end = float(_mean_loss(objective, point, parts[0], 100).detach())
    assert start > end
    assert end == pytest.approx(objective.chance(200), rel=1e-2)


def test_the_numbers_of_a_fresh_nce_at_collapse():
    """S = 40, D = 16, k = 7: 34.6 at the Z of random rows, 3.01 once Z has adapted."""
    uniform = torch.full((40,), -math.log(40))
    fresh = 1 / 0.1 - (math.log(40) + 1 / (2 * 16 * 0.1**2))
    assert losses.nce_collapse(7, fresh, uniform) == pytest.approx(34.56, abs=0.4)
    assert losses.nce_collapse(7, None, uniform) == pytest.approx(3.014, abs=1e-3)
