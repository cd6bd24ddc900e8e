"""memory: unit rows, one writer, state that survives, and how its random rows start."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tellapart.errors import ConfigError
from tellapart.objectives.memory import MemoryBank, Queue


def _bank(**options):
    return MemoryBank(50, 8, generator=torch.Generator().manual_seed(0), **options)


def test_rows_start_as_unit_rows_from_the_generator():
    rows = _bank().rows
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))
    assert torch.equal(rows, _bank().rows)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_update_is_the_normalised_moving_average(momentum):
    bank = _bank(momentum=momentum)
    before, z = bank.rows.clone(), F.normalize(torch.randn(3, 8), dim=1)
    index = torch.tensor([4, 0, 30])
    bank.update(index, z)
    torch.testing.assert_close(
        bank.rows[index], F.normalize(momentum * before[index] + (1 - momentum) * z, dim=1)
    )
    untouched = torch.ones(50, dtype=torch.bool)
    untouched[index] = False
    assert torch.equal(bank.rows[untouched], before[untouched])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("write", ["update", "fill"])
def test_of_a_repeated_row_the_last_entry_counts(write, momentum):
    """Any number of repeats in any order: the rows of one call with the last entries alone."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        index = torch.randint(9, (300,), generator=draw)
        z = F.normalize(torch.randn(300, 8, generator=draw), dim=1)
        repeated, alone = _bank(momentum=momentum), _bank(momentum=momentum)
        getattr(repeated, write)(index, z)
        last = {int(row): i for i, row in enumerate(index)}
        getattr(alone, write)(torch.tensor(list(last)), z[list(last.values())])
        assert torch.equal(repeated.rows, alone.rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_storage_keeps_directions(dtype):
    bank = _bank(dtype=dtype)
    z = F.normalize(torch.randn(50, 8), dim=1)
    bank.fill(torch.arange(50), z)
    assert bank.rows.dtype == dtype
    assert float((F.normalize(bank.rows.float(), dim=1) * z).sum(1).min()) > 0.9999


def test_the_state_holds_everything():
    bank, other = _bank(), MemoryBank(50, 8, generator=torch.Generator().manual_seed(1))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(bank.rows, other.rows)


@pytest.mark.parametrize(("size", "momentum"), [(0, 0.5), (5, 1.0), (5, -0.1)])
def test_bad_arguments_are_named(size, momentum):
    with pytest.raises(ConfigError):
        MemoryBank(size, 4, momentum=momentum, generator=torch.Generator())


# queue --------------------------------------------------------------------------------------------


def _queue(size=7):
    return Queue(size, 3, generator=torch.Generator().manual_seed(0))


def test_the_queue_starts_with_unit_rows_and_keeps_its_pointer_in_its_state():
    queue, other = _queue(), _queue()
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(7))
    queue.push(torch.ones(5, 3))
    other.load_state_dict(queue.state_dict())
    queue.push(torch.full((4, 3), 2.0))
    other.push(torch.full((4, 3), 2.0))
    assert torch.equal(queue.rows, other.rows)
    assert int(other.pointer) == 2


@pytest.mark.parametrize("size", [1, 5, 7, 64])
def test_after_any_pushes_the_queue_holds_the_newest_rows(size):
    queue, pushed = _queue(size), []
    for n in (3, 1, 9, 2, 30, 4, 5, 100):
        rows = torch.arange(len(pushed), len(pushed) + n).float()[:, None].expand(n, 3)
        pushed += rows[:, 0].tolist()
        queue.push(rows)
    assert sorted(queue.rows[:, 0].tolist()) == pushed[-size:]


@pytest.mark.parametrize("size", [0, -1])
def test_a_queue_needs_room(size):
    with pytest.raises(ConfigError, match="a queue needs size > 0"):
        _queue(size)
