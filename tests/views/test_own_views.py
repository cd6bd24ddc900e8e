"""Tests of views of the user: one function for all views, or one for each view."""

import numpy as np
import pytest
import torch

import tellapart as ta
from tellapart.errors import ConfigError
from tellapart.views.own import branch_of, own_views, own_views_known, registered_views


def test_each_branch_has_its_own_function():
    name = registered_views([lambda batch, g: batch * 0, lambda batch, g: batch * 0 + 1])
    views, generator = own_views(name), torch.Generator().manual_seed(0)
    batch = torch.rand(3, 1, 4, 4)
    assert branch_of(views, 0)(batch, generator).unique().tolist() == [0]
    assert branch_of(views, 1)(batch, generator).unique().tolist() == [1]
    assert own_views_known(name)
    assert not own_views_known(name + ",no:such")


def test_fewer_functions_than_views_are_an_error():
    views = own_views(registered_views([lambda batch, g: batch, lambda batch, g: batch]))
    with pytest.raises(ConfigError, match="compares at least 3 views"):
        branch_of(views, 2)


def test_one_function_makes_every_view():
    views = own_views(registered_views(lambda batch, g: batch))
    assert branch_of(views, 0) is branch_of(views, 1) is views


def test_a_training_uses_both_branches(tmp_path):
    calls = []

    def first(batch, generator):
        calls.append("first")
        return batch.float() / 255

    def second(batch, generator):
        calls.append("second")
        return batch.float().flip(3) / 255

    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    options = {"batch_size": 4, "threads": 1, "width": 8}
    run = tmp_path / "run"
    ta.train("simclr", data=images, out=run, views=[first, second], steps=2, **options)
    assert calls.count("second") >= 2
    assert calls.count("first") >= 2  # the monitor compares views of the first branch
