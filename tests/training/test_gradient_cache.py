"""Gradient caching: micro-batches give the loss and gradient of the batch, per objective."""

from __future__ import annotations

import contextlib
import copy
import dataclasses

import pytest
import torch
from cases import CASES, batch, encoder, made, random
from torch import nn

from tellapart import objectives
from tellapart.encoders import Encoder
from tellapart.errors import ConfigError
from tellapart.objectives import InstDiscOptions, MoCoOptions, SimCLROptions
from tellapart.training import gradient_cache
from tellapart.training.config import TrainConfig, differences
from tellapart.training.trainer import Trainer

SMALL = TrainConfig(epochs=1, batch_size=60, threads=1, dim=16, objective=SimCLROptions())


@pytest.fixture(scope="module")
def source(digits):
    return digits.split("train").subset(range(0, 200))


def _pieces(given):
    def part(start, stop):
        torch.manual_seed(start)
        label = None if given.label is None else given.label[start:stop]
        return type(given)([v[start:stop] for v in given.views], given.index[start:stop], label)

    return gradient_cache.Pieces(len(given.index), part, given._replace(views=[]))


def _gradients(objective, network, given, micro):
    objective.zero_grad(set_to_none=True)
    network.zero_grad(set_to_none=True)
    nothing = contextlib.nullcontext()
    args = (objective, network, _pieces(given), random(), nothing)
    out, backward = gradient_cache.cached(*args, micro) if micro else gradient_cache.whole(*args)
    backward()
    found = {
        n: p.grad
        for m in (network, objective)
        for n, p in m.named_parameters()
        if p.grad is not None
    }
    return out, {n: g.clone() for n, g in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_pieces_give_the_gradient_of_the_whole(source, name):
    """To 1e-6 in float64, for the weights of encoder and objective; pieces of 5, 5 and 2 rows."""
    network = encoder(dtype=torch.float64)
    objective = made(name, source, network)
    given = batch(source, objective.views, dtype=torch.float64)
    out, wanted = _gradients(objective, network, given, None)
    again, found = _gradients(objective, network, given, 5)
    torch.testing.assert_close(again.loss, out.loss)
    assert wanted.keys() == found.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-6, atol=1e-9)
    for key in out.writes:
        torch.testing.assert_close(again.writes[key], out.writes[key])


def test_dropout_is_replayed(source):
    """Both passes of a piece use one mask: finite differences of the loss match its gradient."""
    network = encoder(dropout=0.5, dtype=torch.float64)
    objective = made("simclr", source, network)
    given = batch(source, 2, dtype=torch.float64)
    _, found = _gradients(objective, network, given, 4)
    weight, step = network.head.weight, 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0] += sign * step
        values.append(float(_gradients(objective, network, given, 4)[0].loss.detach()))
        with torch.no_grad():
            weight[0, 0] -= sign * step
    assert float(found["head.weight"][0, 0]) == pytest.approx(
        (values[0] - values[1]) / (2 * step), rel=1e-4
    )


def _with_norm(bn_rows):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(256, 20), nn.BatchNorm1d(20), nn.ReLU())
    body.width = 20
    made = Encoder(
        body,
        nn.Linear(20, 8),
        8,
        mean=torch.tensor([0.3]),
        std=torch.tensor([0.4]),
        bn_rows=bn_rows,
    )
    return made.double()


def test_split_batchnorm_makes_pieces_exact_and_plain_batchnorm_does_not(source):
    given = batch(source, 2, dtype=torch.float64)
    for bn_rows, exact in ((2, True), (4, True), (7, True), (None, False)):
        network = _with_norm(bn_rows)
        objective = made("simclr", source, network)
        wanted = _gradients(objective, network, given, None)[1]["head.weight"]
        found = _gradients(objective, network, given, 4)[1]["head.weight"]
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9) == exact


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("micro", [2, 5])
def test_moco_shuffles_its_keys_over_the_whole_batch(source, symmetric, micro):
    """Keys, gradient and running statistics of the key encoder are those of the whole batch."""
    given = batch(source, 2, dtype=torch.float64)
    found = []
    for pieces in (None, micro):
        network = _with_norm(3)
        objective = objectives.build("moco", MoCoOptions(queue=50, symmetric=symmetric), 0)
        objective.attach(network, source)
        out, gradients = _gradients(objective, network, given, pieces)
        found.append((out, gradients, list(objective.key.buffers())))
    (out, wanted, statistics), (again, got, others) = found
    torch.testing.assert_close(again.loss, out.loss)
    torch.testing.assert_close(again.writes, out.writes)
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], rtol=1e-6, atol=1e-9)
    for a, b in zip(statistics, others, strict=True):
        torch.testing.assert_close(a, b)


IMAGES = ["simclr", "moco", "instdisc", "spread", "supcon", "exemplar", "margin", "triplet", "nce"]


@pytest.mark.parametrize("method", IMAGES)
def test_by_default_micro_batches_give_the_exact_gradient(source, method):
    """The default network has BatchNorm: any --micro-batch equals --bn split without one."""
    options = MoCoOptions(queue=100) if method == "moco" else objectives.OPTIONS[method]()
    found = {}
    for micro, bn in ((None, "split"), (7, "auto"), (13, "auto"), (30, "auto")):
        config = dataclasses.replace(
            SMALL, batch_size=60, bn_rows=10, bn=bn, micro_batch=micro, steps=1, width=8,
            head="linear-bn", objective=options, precision="float32",
        )  # fmt: skip
        trainer = Trainer(method, config, source)
        trainer.encoder.double()
        trainer.objective.double()
        trainer.encoder.train()
        out, backward = trainer._loss()
        backward()
        grads = [p.grad.flatten() for p in trainer._parameters() if p.grad is not None]
        found[micro] = (float(out.loss.detach()), torch.cat(grads))
    loss, wanted = found.pop(None)
    for again, grad in found.values():
        assert again == pytest.approx(loss, rel=1e-4)
        assert float((grad - wanted).norm() / wanted.norm()) < 1e-3


def test_without_micro_batches_the_default_is_statistics_of_the_whole_batch(source):
    assert SMALL.batchnorm == "local"
    assert dataclasses.replace(SMALL, micro_batch=8).batchnorm == "split"
    assert dataclasses.replace(SMALL, micro_batch=8, bn="local").batchnorm == "local"
    assert Trainer("simclr", SMALL, source).encoder.bn_rows is None


def test_a_run_of_the_old_default_continues_with_the_new_one():
    """`--bn local` was the default; without micro-batches `auto` is the same."""
    old, new = ({"bn": bn, "micro_batch": None, "lr": 0.1} for bn in ("local", "auto"))
    assert differences(old, new) == []
    assert differences(old | {"micro_batch": 8}, new | {"micro_batch": 8}) != []
    assert differences(old, new | {"bn": "split"}) != []


@pytest.mark.parametrize(("micro", "bn_rows"), [(4, 5), (7, 3), (5, 4), (9, 2)])
def test_split_batchnorm_is_exact_whatever_divides_what(source, micro, bn_rows):
    given = batch(source, 2, dtype=torch.float64)
    network = _with_norm(bn_rows)
    objective = made("simclr", source, network)
    wanted = _gradients(objective, network, given, None)[1]["head.weight"]
    torch.testing.assert_close(
        _gradients(objective, network, given, micro)[1]["head.weight"], wanted
    )


def test_running_statistics_are_updated_once(source):
    given = batch(source, 1, dtype=torch.float64)
    network = _with_norm(4)
    objective = made("softmax", source, network)
    other = copy.deepcopy(network)
    _gradients(objective, network, given, None)
    _gradients(objective, other, given, 4)
    for a, b in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_training_in_pieces_sees_the_views_of_the_whole(source):
    """BatchNorm in groups that fit the pieces: three steps give the same weights, to rounding."""
    found = []
    for micro in (None, 20):
        config = dataclasses.replace(
            SMALL,
            bn="split",
            bn_rows=10,
            micro_batch=micro,
            head="linear-bn",
            steps=3,
            precision="float32",
        )
        trainer = Trainer("simclr", config, source)
        list(trainer)
        found.append(torch.cat([p.detach().flatten() for p in trainer.encoder.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"), [("simclr", SimCLROptions()), ("instdisc", InstDiscOptions())]
)
def test_a_continuation_in_pieces_is_bit_for_bit(source, method, options):
    config = dataclasses.replace(SMALL, micro_batch=16, objective=options, steps=4)
    whole = Trainer(method, config, source)
    list(whole)
    half = Trainer(method, config, source)
    for step in half:
        if step.number == 2:
            break
    state = half.state()
    torch.manual_seed(99)
    rest = Trainer(method, config, source)
    rest.load_state(state)
    list(rest)
    for a, b in zip(
        whole.encoder.state_dict().values(), rest.encoder.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_last_piece_of_one_row_joins_its_neighbour(source):
    trainer = Trainer(
        "simclr",
        dataclasses.replace(SMALL, batch_size=7, micro_batch=3, head="mlp-bn", steps=2),
        source,
    )
    assert len(list(trainer)) == 2


def test_bad_sizes_are_named(source):
    with pytest.raises(ConfigError, match="--micro-batch must be 1 or more"):
        dataclasses.replace(SMALL, micro_batch=0)
    with pytest.raises(ConfigError, match="--bn-rows must be 2 or more"):
        dataclasses.replace(SMALL, bn_rows=1)
    for sizes in ({"batch_size": 1}, {"micro_batch": 1, "bn": "local"}):
        with pytest.raises(ConfigError, match="BatchNorm needs 2 items or more"):
            Trainer("simclr", dataclasses.replace(SMALL, **sizes), source)
