"""The closed forms of the floors against o drawn with the propensities themselves."""

import torch

from upo.functional.binning import bin_sums
from upo.functional.diagnostics import bmse, ece
from upo.functional.noise_floor import bmse_floor, calibration_noise, ece_floor, imbalance_noise

DRAWS, CELLS, BINS = 3000, 600, 5


def test_floors_are_the_mean_over_draws_of_correct_propensities():
    g = torch.Generator().manual_seed(0)
    p = 0.05 + 0.5 * torch.rand(CELLS, generator=g, dtype=torch.float64)
    phi = torch.randn(CELLS, 3, generator=g, dtype=torch.float64)
    index = torch.arange(CELLS) % BINS
    o = (torch.rand(DRAWS, CELLS, generator=g) < p).double()
    n = torch.tensor(float(CELLS))
    each = ece(p.expand_as(o), o, index.expand(o.shape), BINS)
    floor = ece_floor(bin_sums(calibration_noise(p), index, BINS), n)
    assert abs(each.mean() / floor - 1) < 0.03  # 3 standard errors are .02; sums nearly normal
    each = bmse(p.expand_as(o), o, phi)
    floor = bmse_floor((imbalance_noise(p) * phi.square().sum(-1)).sum(), n)
    assert abs(each.mean() / floor - 1) < 4 * each.std() / floor / DRAWS**0.5


def test_a_sample_of_the_unobserved_has_its_own_noise():
    g = torch.Generator().manual_seed(1)
    p, w = torch.full((CELLS,), 0.2, dtype=torch.float64), 4.0
    o = torch.rand(DRAWS, CELLS, generator=g) < p
    kept = o | (torch.rand(DRAWS, CELLS, generator=g) < 1 / w)
    weight = torch.where(o, 1.0, w) * kept
    sums = (weight * (o.double() - p)).sum(-1)
    expected = CELLS * float(calibration_noise(p[0], 1.0, w))
    assert abs(sums.var() / expected - 1) < 0.1
    balance = (weight * torch.where(o, 1 / p, -1 / (1 - p))).sum(-1)
    assert abs(balance.var() / (CELLS * float(imbalance_noise(p[0], 1.0, w))) - 1) < 0.1
