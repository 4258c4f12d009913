"""Propensities next to 0 and 1: no warning, and the balance of the other rows is still tested."""

import numpy as np
import pandas as pd
import pytest
from auditing_tables import true_table, with_columns

import upo
from upo.audit.balance import balance
from upo.audit.inference import sum_tails, weighted_sum_tail
from upo.audit.pairs import Names, read_pairs


def with_rows_of(p, observed, share=0.1, seed=0):
    """A world of which a share of the unobserved (observed) rows has another propensity."""
    table = with_columns(true_table(seed, 60), seed)
    mine = np.random.default_rng(seed).random(len(table)) < share
    mine &= (table.observed == observed).to_numpy()
    return table.assign(propensity=table.propensity.mask(mine, p)), mine


@pytest.mark.parametrize("p", [1e-6, 1e-9, 1e-300, 5e-324])
@pytest.mark.parametrize("observed", [0, 1])
def test_tiny_propensities_leave_every_figure_a_number(p, observed):
    table, mine = with_rows_of(p, observed)
    audit = upo.audit(table)  # warnings are errors
    assert "<h2>Balance</h2>" in audit.to_html()
    numbers = audit.balance.select_dtypes("number")
    assert np.isfinite(numbers).all().all()
    if observed:  # what is all but impossible was seen
        assert audit.n_found > 0
        assert audit.balance.p_adjusted.min() < 1e-6
    else:
        assert audit.balance.standard_error.max() < 0.3
        assert any(f"leaves out {mine.sum()} rows" in note for note in audit.pairs.notes)


def test_settled_rows_do_not_hide_a_feature_that_is_unbalanced():
    draw = np.random.default_rng(0)
    users, items = (x.ravel() for x in np.indices((50, 50)))
    x = draw.random(len(users))
    observed = (draw.random(len(x)) < 0.2 + 0.3 * x).astype(int)
    table = pd.DataFrame({"user": users, "item": items, "observed": observed, "x": x})
    p = np.where((observed == 0) & (draw.random(len(x)) < 0.1), 1e-300, 0.35)
    found = upo.audit(table.assign(propensity=p)).balance.set_index("feature")
    assert found.p_adjusted["x"] < 1e-6
    assert found.standard_error["x"] < 0.1


def test_rows_of_propensity_one_are_settled_too():
    table, mine = with_rows_of(1.0, 1, share=0.5)
    pairs = read_pairs(table, Names(), [], "pairs")
    assert pairs.settled.sum() == mine.sum()
    assert balance(pairs).standard_error.max() < 0.3


def test_ordinary_rows_are_never_settled():
    for p in (1e-3, 1e-4):
        pairs = read_pairs(with_rows_of(p, 0)[0], Names(), [], "pairs")
        assert not pairs.settled.any()
        assert not pairs.notes


def test_z_keeps_its_null_distribution():
    draw = np.random.default_rng(0)
    size = 50
    users, items = (x.ravel() for x in np.indices((size, size)))
    p = draw.uniform(0.05, 0.5, size * size)
    p[draw.random(len(p)) < 0.1] = 1e-9
    table = pd.DataFrame({"user": users, "item": items, "propensity": p, "x": draw.random(len(p))})
    z = []
    for _ in range(100):
        drawn = table.assign(observed=(draw.random(len(p)) < p).astype(int))
        z.append(balance(read_pairs(drawn, Names(), ["x"], "pairs")).set_index("feature").z["x"])
    # standard errors of 100: 0.1 of the mean, 0.07 of the deviation
    assert abs(np.mean(z)) < 0.4
    assert 0.75 < np.std(z) < 1.3


def test_tails_of_tiny_probabilities_are_numbers():
    q = np.array([1e-300, 1e-9, 0.3, 0.5])
    assert 0 <= weighted_sum_tail(1 / q, q, 1e300) <= 1
    tail = sum_tails(np.ones(4), q, np.zeros(4, np.int64), np.array([1.1]), lattice=1.0)
    assert 0 < tail[0] < 0.5
