"""noise: the alias table draws what it is told to."""

from __future__ import annotations

import pytest
import torch

from tellapart.errors import ConfigError
from tellapart.objectives.alias_table import AliasTable


@pytest.mark.parametrize(
    "weights",
    [[1.0] * 10, [1.0, 0.0, 3.0], [5.0], [1e-6, 1.0, 2.0, 1e3], list(range(50)), [0.0, 0.0, 1.0]],
)
def test_the_table_holds_the_distribution_exactly(weights):
    """Probability of a word: its own kept slices and the rest of the slices that point at it."""
    table = AliasTable(torch.tensor(weights))
    s = len(weights)
    p = table.keep.double() / s
    p = p.index_add(0, table.alias, (1 - table.keep.double()) / s)
    torch.testing.assert_close(
        p, torch.tensor(weights).double() / sum(weights), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(table.log_probability.double().exp(), p, rtol=1e-4, atol=1e-7)


def test_uniform_weights_are_a_uniform_draw():
    table = AliasTable(torch.ones(20))
    assert bool((table.keep == 1).all())
    counts = torch.bincount(table.draw((100_000,), torch.Generator().manual_seed(0)), minlength=20)
    assert float((counts / 5000 - 1).abs().max()) < 0.06


def test_draws_have_any_shape_and_come_from_the_generator():
    table = AliasTable(torch.tensor([1.0, 2.0]))
    a, b = (table.draw((4, 5), torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.shape == (4, 5)
    assert torch.equal(a, b)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [[1.0]]])
def test_what_is_no_distribution_is_refused(weights):
    with pytest.raises(ConfigError, match="noise distribution"):
        AliasTable(torch.tensor(weights))
