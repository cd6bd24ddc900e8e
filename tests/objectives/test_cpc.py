"""CPC against the paper's equation as a loop: sounds, predictors, grids of image patches."""

from __future__ import annotations

import math

import pytest
import torch
from samples import seeded, small_sequence_encoder

from tellapart import encoders, objectives
from tellapart.errors import ConfigError, DataError
from tellapart.objectives import Batch, CPCOptions
from tellapart.training import presets
from tellapart.training.trainer import Trainer


def _cpc(options, encoder, seed=0):
    objective = objectives.build("cpc", options, seed)
    objective.attach(encoder, None)
    return objective


def _by_a_loop(objective, embedded, drawn):
    """Equation 4 of the paper for every step, time and sequence, with the drawn negatives."""
    z, c, count = embedded["frames"][:, 0], embedded["context"][:, 0], embedded["count"]
    n, t, width = z.shape
    weights = objective.ahead.weight.view(-1, width, c.shape[2])
    flat = z.reshape(-1, width)
    steps = []
    for k in range(objective.options.first, objective.options.steps + 1):
        losses = []
        for i in range(n):
            for now in range(t - k):
                if now + k >= count[i]:
                    continue
                predicted = weights[k - objective.options.first] @ c[i, now]
                true = torch.exp(z[i, now + k] @ predicted)
                others = [j for j in drawn[i].tolist() if j != i * t + now + k]
                losses.append(
                    -torch.log(true / (true + sum(torch.exp(flat[j] @ predicted) for j in others)))
                )
        steps.append(torch.stack(losses).mean())
    return torch.stack(steps).mean()


@pytest.mark.parametrize("draw", ["batch", "others", "sequence", "label", "label-others"])
def test_cpc_is_the_papers_equation(draw):
    encoder = small_sequence_encoder()
    objective = _cpc(CPCOptions(steps=3, negatives=9, draw=draw), encoder)
    view = {"values": torch.randn(4, 1, 80), "length": torch.tensor([80, 80, 40, 80])}
    batch = Batch([view], torch.arange(4), torch.tensor([0, 0, 1, 1]))
    embedded = objective.embed(encoder, batch)
    drawn = objective._draw(embedded["frames"].float(), embedded["count"], batch, seeded())
    found = objective.loss(embedded, batch, seeded()).loss
    torch.testing.assert_close(found, _by_a_loop(objective, embedded, drawn), atol=1e-5, rtol=1e-5)
    owner, frame = drawn // 10, drawn % 10
    assert (frame < embedded["count"][owner]).all()  # no padding
    row = torch.arange(4)[:, None]
    if draw == "sequence":
        assert (owner == row).all()
    if draw.endswith("others"):
        assert (owner != row).all()
    if draw.startswith("label"):
        assert (batch.label[owner] == batch.label[row]).all()


@pytest.mark.parametrize("predictor", ["linear", "transformer"])
def test_cpc_at_chance_and_its_gradient(predictor):
    encoder = small_sequence_encoder(context_width=12)
    objective = _cpc(CPCOptions(steps=2, negatives=16, draw="others", predictor=predictor), encoder)
    batch = Batch([torch.randn(4, 1, 80)], torch.arange(4))
    out = objective.loss(objective.embed(encoder, batch), batch, seeded())
    out.loss.backward()
    assert float(encoder.frames.layers[0].weight.grad.abs().sum()) > 0
    same = {
        "frames": torch.ones(4, 1, 10, 12),
        "context": torch.ones(4, 1, 10, 12),
        "count": torch.full((4,), 10),
    }
    assert float(objective.loss(same, batch, seeded()).loss.detach()) == pytest.approx(
        objective.chance(4), abs=1e-5
    )


def test_the_transformer_predictor_sees_no_later_context():
    with pytest.raises(ConfigError, match="divisible by 4"):
        _cpc(CPCOptions(steps=2, predictor="transformer"), small_sequence_encoder())
    objective = _cpc(
        CPCOptions(steps=2, predictor="transformer"), small_sequence_encoder(context_width=12)
    )
    c = torch.randn(2, 1, 10, 12)
    later = c.clone()
    later[:, :, 6:] = 3.0
    torch.testing.assert_close(
        objective._attended(c)[:, :, :6], objective._attended(later)[:, :, :6]
    )


def test_cpc_wants_frames_and_labels_where_it_reads_them(digits):
    with pytest.raises(ConfigError, match="frames in an order"):
        Trainer("cpc", presets.named("cpc_images").__class__(objective=CPCOptions()), digits)
    encoder = small_sequence_encoder()
    objective = _cpc(CPCOptions(steps=2, draw="label"), encoder)
    batch = Batch([torch.randn(4, 1, 80)], torch.arange(4))
    with pytest.raises(DataError, match="reads labels"):
        objective.loss(objective.embed(encoder, batch), batch, seeded())
    short = Batch([torch.randn(4, 1, 8)], torch.arange(4), torch.zeros(4, dtype=torch.int64))
    embedded = objective.embed(encoder, short)
    with pytest.raises(DataError, match="no sequence"):
        objective.loss(embedded, short, seeded())


def test_steps_that_no_sequence_reaches_do_not_count():
    encoder = small_sequence_encoder()
    objective = _cpc(CPCOptions(steps=8, negatives=16, draw="others"), encoder)
    same = {
        "frames": torch.ones(4, 1, 10, 12),
        "context": torch.ones(4, 1, 10, 10),
        "count": torch.full((4,), 4),
    }
    out = objective.loss(same, Batch([], torch.arange(4)), seeded())
    assert float(out.loss.detach()) == pytest.approx(objective.chance(4), abs=1e-5)


def test_patches_of_images_give_columns_whose_context_looks_up_only(digits):
    encoder = encoders.build("patches", channels=1, size=16, head_kind="none", width=8)
    x = torch.rand(2, 1, 16, 16)
    z, c, count = encoder.sequence(x)
    assert (z.shape, c.shape, count.tolist()) == ((2, 7, 7, 32), (2, 7, 7, 32), [7, 7])
    below = x.clone()
    below[:, :, 12:] = 0.0  # rows of patches 5 and 6 begin at pixel 10 and 12
    other = encoder.sequence(below)[1]
    torch.testing.assert_close(c[:, :, :5], other[:, :, :5])
    assert not torch.allclose(c[:, :, 6], other[:, :, 6])
    torch.testing.assert_close(encoder.features(x), z.mean((1, 2)))
    config = presets.named("cpc_images")
    trainer = Trainer(
        "cpc",
        config.__class__(**{**vars(config), "steps": 2, "batch_size": 16}),
        digits.subset(range(64)),
    )
    assert all(math.isfinite(step.loss) for step in trainer)
