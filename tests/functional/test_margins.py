"""Additive logits reproduce the margins they are given, on groups of them too."""

import pytest
import torch

from upo.functional.margins import (
    FLAT,
    GROUPS,
    additive_logits,
    chance_pseudocounts,
    smoothed_margins,
)


def margins(n, mean, seed, spread=1.0):
    x = torch.exp(spread * torch.randn(n, generator=torch.Generator().manual_seed(seed)).double())
    return mean * x / x.mean()


@pytest.mark.parametrize(("n", "m", "mean"), [(40, 60, 0.15), (300, 30, 0.01)])
def test_margins_are_reproduced(n, m, mean):
    rows, columns = margins(n, mean, 0, 0.5), margins(m, mean, 1, 0.5)
    a, b = additive_logits(rows, columns)
    p = torch.sigmoid(a[:, None] + b)
    torch.testing.assert_close(p.mean(1), rows, rtol=1e-4, atol=0)
    torch.testing.assert_close(p.mean(0), columns, rtol=1e-4, atol=0)


def test_more_margins_than_groups_are_reproduced_on_average():
    rows, columns = margins(6 * GROUPS, 0.02, 0), margins(4 * GROUPS, 0.02, 1)
    assert max(rows.max(), columns.max()) < 0.98
    a, b = additive_logits(rows, columns)
    found = torch.sigmoid(a[:, None] + b).mean(1)
    # within a group the logit is interpolated
    assert float((found / rows - 1).abs().mean()) < 2e-3
    assert float(found.mean()) == pytest.approx(0.02, rel=2e-3)


def test_equal_margins_give_the_logit_of_the_density():
    a, b = additive_logits(torch.full((5,), 0.2).double(), torch.full((7,), 0.2).double())
    expected = torch.logit(torch.full((5, 7), 0.2).double())
    torch.testing.assert_close(a[:, None] + b, expected)


def test_a_full_row_has_a_finite_logit():
    a, b = additive_logits(torch.tensor([1.0, 0.2, 0.3]).double(), torch.full((9,), 0.5).double())
    assert torch.isfinite(a).all()
    assert torch.isfinite(b).all()
    assert a[0] > a[2] > a[1]


def test_smoothed_margins_have_the_density_as_mean():
    counts = torch.tensor([[0, 3, 9], [4, 4, 4]])
    p = smoothed_margins(counts, 0.3, torch.tensor([2.0, 5.0]))
    expected = 0.3 * torch.tensor([[2 / 6, 5 / 6, 11 / 6], [1.0, 1.0, 1.0]]).double()
    torch.testing.assert_close(p, expected)


def test_pseudocounts_shrink_by_as_much_as_chance_explains():
    """Counts of gamma rates: least squares of the true rates on counts finds the same shrinkage."""
    g = torch.Generator().manual_seed(0)
    shape, mean = 3.0, 8.0
    rates = torch._standard_gamma(torch.full((200_000,), shape), generator=g) / shape
    counts = torch.poisson(mean * rates, generator=g)
    # moments of 200,000 draws: about 1.5 %
    assert float(chance_pseudocounts(counts[None], 0.0)) == pytest.approx(shape, rel=0.05)
    equal = torch.poisson(torch.full((1000,), mean), generator=g).clamp(7, 9)[None]
    assert float(chance_pseudocounts(equal, 0.0)) == FLAT
