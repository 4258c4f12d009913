"""Tilted propensities meet their equations exactly, or end finite where none can."""

import pytest
import torch

from upo.functional.prediction import snips_loss
from upo.functional.tilting import tilt


def world(seed=0, n=3000, density=0.1):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(2, n, generator=g, dtype=torch.float64) - 2.2
    e_hat = torch.rand(2, n, generator=g, dtype=torch.float64)
    o = torch.rand(n, generator=g) < density
    return z, e_hat, o


def tilted(z, b, o):
    s = tilt(z[:, o], b[:, o], b.sum(1))
    return 1 + (-z - (b * s[:, None]).sum(-1)).exp(), s


def columns(e_hat):
    return torch.stack([torch.ones_like(e_hat), e_hat - e_hat.mean(-1, keepdim=True)], dim=-1)


@pytest.mark.parametrize("seed", range(4))
def test_inverse_propensities_balance_every_column_exactly(seed):
    z, e_hat, o = world(seed)
    b = columns(e_hat)
    weight, _ = tilted(z, b, o)
    found = (weight[:, o, None] * b[:, o]).sum(1)
    # Newton's method in float64; the ridge of 1e-9 of |O| is what is left
    torch.testing.assert_close(found, b.sum(1), rtol=1e-6, atol=1e-5)
    assert (weight > 1).all()


def test_snips_of_the_imputed_errors_is_their_mean():
    z, e_hat, o = world(7)
    weight, _ = tilted(z, columns(e_hat), o)
    torch.testing.assert_close(
        snips_loss(e_hat[:, o], 1 / weight[:, o]), e_hat.mean(-1), rtol=1e-7, atol=1e-7
    )
    before = snips_loss(e_hat[:, o], torch.sigmoid(z[:, o]))
    assert (before - e_hat.mean(-1)).abs().min() > 1e-4


def test_what_is_balanced_already_stays():
    z, e_hat, o = world(2)
    b = columns(e_hat)
    weight, s = tilted(z, b, o)
    again = tilt(-(weight - 1).log()[:, o], b[:, o], b.sum(1))
    assert s.abs().max() > 0.01
    torch.testing.assert_close(again, torch.zeros_like(s), rtol=0, atol=1e-6)


def test_equations_without_a_solution_end_finite():
    z, e_hat, o = world(3, n=200)
    b = columns(e_hat)
    target = b.sum(1) * torch.tensor([1.0, 0.0]).double() + torch.tensor([0.0, 1e6]).double()
    assert torch.isfinite(tilt(z[:, o], b[:, o], target)).all()


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_certain_propensities_end_finite(logit):
    _, e_hat, o = world(4, n=200)
    b = columns(e_hat)
    z = torch.full_like(e_hat, logit)
    assert torch.isfinite(tilt(z[:, o], b[:, o], b.sum(1))).all()


def test_replicas_do_not_mix():
    z, e_hat, o = world(5)
    b = columns(e_hat)
    both = tilt(z[:, o], b[:, o], b.sum(1))
    alone = torch.cat([tilt(z[r : r + 1, o], b[r : r + 1, o], b[r : r + 1].sum(1)) for r in (0, 1)])
    torch.testing.assert_close(both, alone, rtol=1e-9, atol=1e-9)
