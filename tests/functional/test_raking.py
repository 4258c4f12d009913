"""Raked propensities: totals of every user and item, and the bias that they remove."""

import pytest
import torch

from upo.errors import InputError
from upo.functional.raking import rake, shrunk_totals

USERS, ITEMS = 30, 20


def log(seed=0):
    """Rows of a log in which every user and item has some, with rough logits."""
    g = torch.Generator().manual_seed(seed)
    o = torch.rand(USERS, ITEMS, generator=g) < 0.3
    o[torch.arange(USERS), torch.arange(USERS) % ITEMS] = True
    users, items = (x[None] for x in o.nonzero(as_tuple=True))
    z = torch.randn(1, USERS, ITEMS, generator=g, dtype=torch.float64) - 1
    return z, users, items


def raked(z, users, items, slack=0.0):
    logit = z[0][users[0], items[0]][None]
    weight = 1 + (-logit).exp()
    totals = [
        shrunk_totals(weight, users, USERS, ITEMS, slack),
        shrunk_totals(weight, items, ITEMS, USERS, slack),
    ]
    s, t = rake(logit, users, items, *totals, sweeps=300)
    return 1 + (-(logit + s.gather(1, users) + t.gather(1, items))).exp(), totals


def sums(value, index, size):
    return torch.zeros(1, size, dtype=value.dtype).scatter_add(1, index, value)


def test_inverse_propensities_add_up_to_the_cells_of_every_user_and_item():
    z, users, items = log()
    weight, _ = raked(z, users, items)
    assert (weight > 1).all()
    # iterative fitting converges linearly; 300 sweeps are far beyond float64 here
    torch.testing.assert_close(sums(weight, users, USERS), torch.full((1, USERS), 20.0).double())
    torch.testing.assert_close(sums(weight, items, ITEMS), torch.full((1, ITEMS), 30.0).double())


def test_an_imputation_off_by_user_and_item_leaves_no_bias():
    z, users, items = log(1)
    weight, _ = raked(z, users, items)
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(n, 1, generator=g, dtype=torch.float64) for n in (USERS, ITEMS))
    gap = a + b.T  # e - e_hat
    bias = gap.sum() - (weight[0] * gap[users[0], items[0]]).sum()
    unraked = 1 + (-z[0][users[0], items[0]]).exp()
    before = gap.sum() - (unraked * gap[users[0], items[0]]).sum()
    assert abs(float(bias)) < 1e-8 < abs(float(before))


def test_totals_that_noise_explains_stay_as_they_are():
    z, users, items = log(3)
    weight, totals = raked(z, users, items, slack=1e6)
    start = 1 + (-z[0][users[0], items[0]][None]).exp()
    torch.testing.assert_close(totals[0], sums(start, users, USERS))
    torch.testing.assert_close(weight, start)


def test_a_user_without_rows_keeps_its_propensities():
    z, users, items = log(4)
    kept = users[0] != 7
    users, items = users[:, kept], items[:, kept]
    logit = z[0][users[0], items[0]][None]
    totals = [torch.full((1, n), float(m)).double() for n, m in ((USERS, ITEMS), (ITEMS, USERS))]
    s, t = rake(logit, users, items, *totals)
    assert s[0, 7] == 0
    assert torch.isfinite(s).all()
    assert torch.isfinite(t).all()


def test_no_term_exceeds_its_limit():
    z, users, items = log(5)
    logit = 20 * z[0][users[0], items[0]][None]
    totals = [torch.full((1, n), float(m)).double() for n, m in ((USERS, ITEMS), (ITEMS, USERS))]
    terms = rake(logit, users, items, *totals, limit=0.5)
    assert all(term.abs().max() <= 0.5 for term in terms)
    assert any(term.abs().max() > 0.4 for term in terms)


def test_no_sweep_is_refused():
    with pytest.raises(InputError, match="at least one sweep"):
        rake(torch.zeros(1, 1), *[torch.zeros(1, 1).long()] * 2, *[torch.ones(1, 1)] * 2, sweeps=0)
