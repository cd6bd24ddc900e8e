"""Fine-tuning, distillation and label budgets: which weights train, and whether they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tellapart import encoders
from tellapart.errors import ConfigError, DataError
from tellapart.evaluation.fine_tune import Schedule, distil, fine_tune, right
from tellapart.evaluation.label_budget import FROZEN, MIDDLE, SELF, SMALLER, Effort, label_budget
from tellapart.functional import losses

FAST = Schedule(steps=60, batch_size=32, lr=0.05)


@pytest.fixture(scope="module")
def parts(digits):
    return digits.split("train").subset(np.arange(300)), digits.split("test")


def _encoder(head="mlp-bn"):
    return encoders.build("small-resnet", channels=1, size=16, head_kind=head, seed=0).eval()


def _state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_distillation_is_the_equation_as_a_loop_and_least_where_both_agree():
    s, t = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for i in range(4):
        p, q = (np.exp(v[i].numpy() / 2) / np.exp(v[i].numpy() / 2).sum() for v in (t, s))
        total -= (p * np.log(q)).sum()
    assert float(losses.distillation(s, t, temperature=2.0)) == pytest.approx(total / 4, abs=1e-12)
    student = t.clone().requires_grad_()
    losses.distillation(student, t, temperature=2.0).backward()
    assert student.grad.abs().max() < 1e-12
    with pytest.raises(ConfigError, match="temperature"):
        losses.distillation(s, t, temperature=0.0)


def test_fine_tuning_learns_and_leaves_the_encoder_it_was_given(parts):
    train, test = parts
    encoder = _encoder()
    before = _state(encoder)
    model = fine_tune(encoder, train, classes=10, schedule=FAST)
    assert right(model, test).mean() > 0.6
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert not encoder.training
    again = fine_tune(encoder, train, classes=10, schedule=FAST)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_the_first_layer_of_the_head_is_kept_and_trained(parts):
    train, _ = parts
    encoder = _encoder()
    model = fine_tune(encoder, train, classes=10, head_layers=1, schedule=Schedule(steps=2))
    assert [type(m).__name__ for m in model.encoder.head] == ["Linear", "BatchNorm1d", "ReLU"]
    assert not torch.equal(model.encoder.head[0].weight, encoder.head[0].weight)
    with pytest.raises(ConfigError, match="the head has 1 hidden layer, 2 were asked for"):
        fine_tune(encoder, train, classes=10, head_layers=2)


def test_a_student_learns_the_teachers_answers_without_labels(parts):
    train, test = parts
    teacher = fine_tune(_encoder(), train, classes=10, schedule=FAST)
    small = encoders.build("small-resnet", channels=1, size=16, width=8, seed=1)
    unlabelled = train.subset(np.arange(len(train)))
    object.__setattr__(unlabelled, "all_labels", None)
    student = distil(teacher, small, unlabelled, schedule=Schedule(steps=80, lr=0.1))
    agree = torch.stack(
        [m(test.read(torch.arange(360)) / 255).argmax(1) for m in (teacher, student)]
    )
    assert (agree[0] == agree[1]).float().mean() > 0.6
    with pytest.raises(DataError, match="needs a label for each item"):
        fine_tune(small, unlabelled, classes=10)


def test_a_budget_shows_every_way_on_the_same_draws(parts):
    train, test = parts
    quick = Schedule(steps=4, batch_size=16)
    found = label_budget(
        _encoder(), _encoder(), train, test, per_class=2, effort=Effort(2, quick, quick, quick)
    )
    assert len(found) == 6
    assert found[FROZEN]["draws"] == found[MIDDLE]["draws"] == 2
    assert found[SELF]["draws"] == found[SMALLER]["draws"] == 1
    assert all(s["low"] <= s["value"] <= s["high"] for s in found.values())
    plain = label_budget(
        _encoder("linear"),
        _encoder(),
        train,
        test,
        share=0.1,
        effort=Effort(1, quick, quick, quick, False),
    )
    assert len(plain) == 3  # no hidden layer to start from, nothing distilled
