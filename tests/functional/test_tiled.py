"""tiled: equal to the dense forms, in value and gradient, at any scale of the inputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tellapart.errors import ConfigError
from tellapart.functional import losses, tiled


@pytest.fixture
def small_tiles(monkeypatch):
    """Force the tiled path and several tiles on small inputs."""
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", 0)
    monkeypatch.setitem(tiled.TILE_ELEMENTS, "cpu", 64 * 7)


def _rows(n, d, seed=0, dtype=torch.float64):
    return F.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1
    )


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_logsumexp_equals_the_dense_form_and_its_gradients(small_tiles, temperature):
    q, k = _rows(7, 5).requires_grad_(), _rows(301, 5, 1).requires_grad_()
    weight = torch.arange(7.0, dtype=torch.float64)
    value = tiled.logsumexp(q, k, temperature=temperature)
    found = torch.autograd.grad((value * weight).sum(), [q, k])
    dense = torch.logsumexp(q @ k.T / temperature, 1)
    wanted = torch.autograd.grad((dense * weight).sum(), [q, k])
    torch.testing.assert_close(value, dense)
    torch.testing.assert_close(found, wanted)


def test_logsumexp_passes_gradcheck(small_tiles):
    q, k = _rows(3, 4).requires_grad_(), _rows(200, 4, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: tiled.logsumexp(a, b, temperature=0.2), (q, k))


def test_logsumexp_is_finite_for_rows_far_from_unit_length(small_tiles):
    q, k = _rows(3, 4) * 100, _rows(200, 4, 1) * 100
    value = tiled.logsumexp(q, k, temperature=0.01)
    torch.testing.assert_close(value, torch.logsumexp(q @ k.T / 0.01, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_accumulated_in_float32(small_tiles, dtype):
    q, k = _rows(4, 32, dtype=torch.float32), _rows(5000, 32, 1, dtype=torch.float32)
    value = tiled.logsumexp(q.to(dtype), k.to(dtype), temperature=0.07)
    assert value.dtype == torch.float32
    exact = torch.logsumexp(q.to(dtype).double() @ k.to(dtype).double().T / 0.07, 1)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_same_value_under_autocast(small_tiles):
    q, k = _rows(4, 8, dtype=torch.float32), _rows(300, 8, 1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = tiled.logsumexp(q, k, temperature=0.1)
    assert torch.equal(inside, tiled.logsumexp(q, k, temperature=0.1))


@pytest.mark.parametrize(
    "name", ["nt_xent", "info_nce", "invariant_spread", "sup_con", "triplet", "nce", "softmax"]
)
def test_losses_and_gradients_are_independent_of_autocast(name):
    """Forward and backward inside, at a size that is tiled."""
    a, b = (
        torch.nn.functional.normalize(_rows(600, 16, i, dtype=torch.float32), dim=1) for i in (0, 1)
    )
    index = torch.arange(600)

    def loss(x):
        return {
            "nt_xent": lambda: losses.nt_xent(x, b),
            "info_nce": lambda: losses.info_nce(x, b),
            "invariant_spread": lambda: losses.invariant_spread(x, b),
            "sup_con": lambda: losses.sup_con(x, index % 7),
            "triplet": lambda: losses.triplet(x, index % 7, mining="all"),
            "nce": lambda: losses.nce(x, b, index, index[:50], log_z=9.0),
            "softmax": lambda: losses.instance_softmax(x, b, index),
        }[name]()

    found = []
    for on in (False, True):
        x = a.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            value = loss(x)
            assert value.dtype == torch.float32
            value.backward()
        found.append((value.detach(), x.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    gap = float((found[0][1] - found[1][1]).norm() / found[0][1].norm())
    assert (
        gap < 0.02
    )  # products of torch's own backward are rounded to bfloat16 there; those of the tiles are not


def test_a_second_derivative_of_tiles_is_refused_rather_than_wrong():
    a, b = (_rows(600, 8, i, dtype=torch.float32).requires_grad_() for i in (0, 1))
    for value in (
        tiled.logsumexp(a, b, temperature=1.0),
        tiled.logsumexp(a / 9, a / 9, temperature=1.0),
    ):
        with pytest.raises(NotImplementedError, match="second derivatives"):
            torch.autograd.grad(value.sum(), a, create_graph=True)


OPTIONS = [
    {},
    {"exclude_self": True},
    {"labels": True},
    {"exclude_self": True, "labels": True},
]


def _naive(q, k, temperature, exclude_self=False, labels=None):
    """Row by row, as the definition reads."""
    out = []
    for i in range(len(q)):
        rows = [
            j
            for j in range(len(k))
            if not (exclude_self and i == j) and (labels is None or labels[i] == labels[j])
        ]
        s = (k[rows] @ q[i]) / temperature
        out.append(torch.logsumexp(s, 0) if rows else q.new_full((), float("-inf")))
    return torch.stack(out)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dense", [True, False])
def test_the_in_batch_case_leaves_out_what_it_is_told_to(monkeypatch, dense, options, temperature):
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", 1 << 30 if dense else 0)
    monkeypatch.setitem(tiled.SQUARE, "cpu", 8)
    z = _rows(21, 5).requires_grad_()
    if "labels" in options:
        options = options | {"labels": torch.arange(21) % 12}  # some have no partner: an empty sum
    value = tiled.logsumexp(z, z, temperature=temperature, **options)
    wanted = _naive(z, z, temperature, **options)
    torch.testing.assert_close(value, wanted)
    there = wanted.isfinite()
    weight = torch.arange(21.0, dtype=torch.float64)[there]
    (found,) = torch.autograd.grad((value[there] * weight).sum(), z)
    (grad,) = torch.autograd.grad((wanted[there] * weight).sum(), z)
    torch.testing.assert_close(found, grad)


@pytest.mark.parametrize("options", OPTIONS)
def test_more_rows_than_queries_stand_behind_them(small_tiles, options):
    q = _rows(9, 5).requires_grad_()
    rest = _rows(150, 5, 1).requires_grad_()
    k = torch.cat([q, rest])
    if "labels" in options:
        options = options | {"labels": torch.arange(159) % 7}
    value, wanted = tiled.logsumexp(q, k, temperature=0.2, **options), _naive(q, k, 0.2, **options)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), [q, rest], retain_graph=True),
        torch.autograd.grad(wanted.sum(), [q, rest]),
    )


@pytest.mark.parametrize("exclude_self", [True, False])
def test_the_symmetric_form_passes_gradcheck(small_tiles, monkeypatch, exclude_self):
    monkeypatch.setitem(tiled.SQUARE, "cpu", 4)
    z = _rows(7, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: tiled.logsumexp(
            a, a, temperature=0.3, exclude_self=exclude_self, labels=torch.arange(7) % 2
        ),
        (z,),
    )


def test_rows_too_long_for_one_shift_take_the_careful_path(small_tiles):
    z = (_rows(40, 4) * 50).requires_grad_()
    value = tiled.logsumexp(z, z, temperature=0.05, exclude_self=True)
    torch.testing.assert_close(value, _naive(z, z, 0.05, exclude_self=True))


def test_a_row_that_is_not_a_number_stays_visible(small_tiles):
    z = _rows(20, 4)
    z[3] = float("nan")
    assert bool(tiled.logsumexp(z, z, temperature=0.2, exclude_self=True).isnan().all())


@pytest.mark.parametrize(("rows", "length"), [(20, 1), (3000, 1), (3000, 8)])
def test_torch_compile_keeps_it_whole(rows, length):
    z = _rows(rows, 8, dtype=torch.float32) * length

    def loss(z):
        return tiled.logsumexp(z, z, temperature=0.5, exclude_self=True).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    torch.testing.assert_close(compiled(a), loss(b))
    compiled(a).backward()
    loss(b).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_memory_is_flat_in_the_number_of_rows(small_tiles, monkeypatch):
    """No tensor larger than the embeddings or a tile is ever made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else [out]:
                if isinstance(t, torch.Tensor):
                    Largest.seen = max(Largest.seen, t.numel())
            return out

    monkeypatch.setitem(tiled.SQUARE, "cpu", 64)
    z = _rows(1000, 4).requires_grad_()
    with Largest():
        tiled.logsumexp(z, z, temperature=0.5, exclude_self=True).sum().backward()
    assert Largest.seen <= max(64 * 64, z.numel())


def _repulsion_by_definition(q, k, skip, temperature, exclude_self):
    """log Z and -sum_j log(1 - P_ij) in float64; -log(1 - P) = ln(1 + e^s / sum over others)."""
    q, k = q.double(), k.double()
    s = q @ k.T / temperature
    if exclude_self:
        s = s.masked_fill(torch.eye(*s.shape, dtype=torch.bool), float("-inf"))
    log_z = s.logsumexp(1)
    total = torch.zeros(len(q), dtype=torch.float64)
    for j in range(len(k)):
        counted = ~(skip == j).any(1) & s[:, j].isfinite()
        others = torch.cat([s[:, :j], s[:, j + 1 :]], 1).logsumexp(1)
        odds = torch.logaddexp(s[:, j] - others, torch.zeros_like(others))
        total = total + torch.where(counted, odds, 0.0)
    return log_z, total


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.02, 0.005])
@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_repulsion_equals_its_definition_and_its_gradients(
    small_tiles, monkeypatch, dense, exclude_self, temperature, dtype, tolerance
):
    """Down to temperatures at which one P of most rows rounds to 1."""
    monkeypatch.setattr(tiled, "DENSE_ELEMENTS", 1 << 30 if dense else 0)
    q = _rows(30, 5).to(dtype).requires_grad_()
    rest = _rows(120, 5, 1).to(dtype).requires_grad_()
    skip = torch.stack([torch.arange(30), torch.arange(30).roll(7)], 1)
    weight = torch.arange(1.0, 31.0, dtype=dtype)
    found = tiled.repulsion(
        q, torch.cat([q, rest]), skip, temperature=temperature, exclude_self=exclude_self
    )
    wanted = _repulsion_by_definition(q, torch.cat([q, rest]), skip, temperature, exclude_self)
    for value, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.double(), exact, rtol=tolerance, atol=tolerance)
        got = torch.autograd.grad((value * weight).sum(), [q, rest], retain_graph=True)
        right = torch.autograd.grad((exact * weight).sum(), [q, rest], retain_graph=True)
        for a, b in zip(got, right, strict=True):
            assert float((a - b).norm()) <= tolerance * float(b.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_repulsion_of_half_precision_rows_is_computed_in_float32(small_tiles, dtype):
    q, k = _rows(6, 8, dtype=torch.float32).to(dtype), _rows(200, 8, 1).to(dtype)
    skip = torch.arange(6)[:, None]
    for value, exact in zip(
        tiled.repulsion(q, k, skip, temperature=0.05),
        _repulsion_by_definition(q, k, skip, 0.05, False),
        strict=True,
    ):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", ["queries", "rows", "both"])
def test_repulsion_passes_gradcheck_whatever_is_trained(small_tiles, trained):
    q, k = _rows(4, 3), _rows(130, 3, 1)
    if trained != "rows":
        q.requires_grad_()
    if trained != "queries":
        k.requires_grad_()
    skip = torch.tensor([[0], [129], [64], [63]])
    assert torch.autograd.gradcheck(
        lambda a, b: tiled.repulsion(a, b, skip, temperature=0.05), (q, k)
    )


def test_copies_of_a_row_have_the_probability_one_half(small_tiles):
    """Two equal rows share the largest similarity: P = 1/2 each, -log(1 - P) = ln 2."""
    z = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0)
    k = torch.cat([z, torch.zeros(64, 4, dtype=torch.float64)])
    skip = torch.arange(8)[:, None]
    _, value = tiled.repulsion(z, k, skip, temperature=0.01)
    torch.testing.assert_close(value, torch.full_like(value, 0.6931471805599453))


# torch.func ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "queue", "spread", "released", "sup_con"])
def test_func_grad_works_at_any_size(small_tiles, name):
    """torch.func.grad above the tiled switch gives the gradient that backward gives."""
    b = _rows(40, 5, 1)
    formulas = {
        "nt_xent": lambda x: losses.nt_xent(x, b),
        "info_nce": lambda x: losses.info_nce(x, b),
        "queue": lambda x: losses.info_nce(x, b, b.flip(0)),
        "spread": lambda x: losses.invariant_spread(x, b),
        "released": lambda x: losses.invariant_spread_released(x, b),
        "sup_con": lambda x: losses.sup_con(x, torch.arange(40) % 7),
    }
    a = _rows(40, 5).requires_grad_()
    (wanted,) = torch.autograd.grad(formulas[name](a), a)
    torch.testing.assert_close(torch.func.grad(formulas[name])(a.detach()), wanted)


@pytest.mark.parametrize("name", ["logsumexp", "nt_xent", "released", "softmax"])
def test_vmap_works_at_any_size_and_without_a_warning(small_tiles, name, recwarn):
    b = _rows(20, 5, 1)
    formulas = {
        "logsumexp": lambda x: tiled.logsumexp(x, b, temperature=0.2),
        "nt_xent": lambda x: losses.nt_xent(x, b),
        "released": lambda x: losses.invariant_spread_released(x, b),
        "softmax": lambda x: losses.instance_softmax(x, b, torch.arange(20)),
    }
    stack = torch.stack([_rows(20, 5, seed) for seed in range(3)])
    found = torch.func.vmap(formulas[name])(stack)
    torch.testing.assert_close(found, torch.stack([formulas[name](x) for x in stack]))
    per_sample = torch.func.vmap(torch.func.grad(lambda x: formulas[name](x).sum()))(stack)
    for rows, got in zip(stack, per_sample, strict=True):
        x = rows.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(formulas[name](x).sum(), x)
        torch.testing.assert_close(got, wanted)
    assert not [w for w in recwarn if "batching rule" in str(w.message)]


@pytest.mark.parametrize(
    "x", [-700.0, -50.0, -30.0, -19.0, 0.0, 19.0, 21.0, 30.0, 39.9, 41.0, 700.0]
)
@pytest.mark.parametrize("beta", [1.0, 1 / 0.07])
def test_softplus_is_exact_in_float64(x, beta):
    value = torch.tensor(x / beta, dtype=torch.float64, requires_grad=True)
    found = tiled.softplus(value, beta)
    exact = (max(x, 0.0) + math.log1p(math.exp(-abs(x)))) / beta
    assert float(found.detach()) == pytest.approx(exact, rel=1e-12)
    (slope,) = torch.autograd.grad(found, value)
    assert float(slope) == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-12)


@pytest.mark.parametrize("size", [3, 600])
def test_a_tensor_as_temperature_is_refused_rather_than_left_without_a_gradient(size):
    z = _rows(size, 4)
    with pytest.raises(ConfigError, match="divide the query rows by it"):
        losses.nt_xent(z, z, temperature=torch.tensor(0.5, requires_grad=True))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_temperature_is_named(temperature):
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        tiled.logsumexp(_rows(2, 3), _rows(2, 3), temperature=temperature)


def test_shapes_and_k_are_checked():
    with pytest.raises(ConfigError, match=r"got \(2, 3\) and \(2, 4\)"):
        tiled.logsumexp(_rows(2, 3), _rows(2, 4), temperature=1.0)
    with pytest.raises(ConfigError, match="query i must be row i"):
        tiled.logsumexp(_rows(3, 3), _rows(2, 3), temperature=1.0, exclude_self=True)
    with pytest.raises(ConfigError, match="one label per row is needed"):
        tiled.logsumexp(_rows(2, 3), _rows(2, 3), temperature=1.0, labels=torch.arange(3))
