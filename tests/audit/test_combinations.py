"""The adversary over combinations of users and items: what only it finds, and its null."""

import numpy as np
import pandas as pd
import pytest
from auditing_tables import sampled
from scipy.stats import binom, kstest

import upo
from upo.audit.combinations import combinations
from upo.audit.inference import weighted_sum_tail
from upo.audit.pairs import Names, read_pairs

NAME = "user-item combinations"


def drawn(p, claimed, seed):
    """Every pair of a matrix of propensities, with what is claimed of it."""
    users, items = (x.ravel() for x in np.indices(p.shape))
    observed = (np.random.default_rng([seed, 1]).random(len(users)) < p.ravel()).astype(int)
    claimed = np.broadcast_to(claimed, p.shape).ravel()
    return pd.DataFrame({"user": users, "item": items, "observed": observed, "propensity": claimed})


def communities(seed, shape=(200, 150), rates=(0.16, 0.008)):
    """Two halves of users and items that meet at one rate, across at another; claimed: the mean."""
    rng = np.random.default_rng(seed)
    g, h = (rng.permutation(size) % 2 for size in shape)
    return drawn(np.where(g[:, None] == h, *rates), np.mean(rates), seed)


def bands(seed):
    """Most observed near the diagonal; claimed is the product of the margins."""
    u, i = np.arange(120) / 120, np.arange(100) / 100
    p = np.where(np.abs(u[:, None] - i) < 0.1, 0.5, 0.01)
    return drawn(p, np.outer(p.mean(axis=1), p.mean(axis=0)) / p.mean(), seed)


def one_row_users(table, seed, count=1500):
    """The table with users that have a single pair in it, as likely to be observed as claimed."""
    rng = np.random.default_rng([seed, 3])
    p = rng.uniform(0.01, 0.2, count)
    more = {
        "user": np.arange(count) + table.user.max() + 1,
        "item": rng.integers(table.item.nunique(), size=count),
        "observed": (rng.random(count) < p).astype(int),
        "propensity": p,
    }
    return pd.concat([table, pd.DataFrame(more)], ignore_index=True)


def read(table):
    return read_pairs(table, Names(), None, "pairs")


FAULTS = {
    "two communities": communities(0),
    "sampled": sampled(communities(1), 1),
    "bands": bands(0),
    "among users of one row": one_row_users(communities(2), 2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_no_sum_of_a_user_and_an_item_shows_is_found(name):
    audit = upo.audit(FAULTS[name])
    adversary = audit.adversary.set_index("adversary")
    assert adversary.p_adjusted[NAME] < 1e-6
    z = adversary.gain / adversary.standard_error
    assert z[NAME] > 1.5 * z["users and items"]  # whose bound makes a little of such a direction
    where = audit.findings["where"].str
    for word in ("low", "high"):
        assert where.contains(f"the adversary over {NAME} calls most too {word}").any()
    assert any("Wrong for combinations" in step for step in audit.next_steps)


def null_tables(kind, count):
    """Tables with correct propensities, of some thousand pairs."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        p = np.full((70, 60), 0.01)
        if kind != "rare":
            terms = rng.normal(size=70)[:, None] + rng.normal(size=60) - 3
            p = 1 / (1 + np.exp(-terms))
        table = drawn(p, p, seed)
        if kind == "sampled":
            table = sampled(table, seed)
        yield one_row_users(table, seed) if kind == "users of one row" else table


@pytest.mark.parametrize("kind", ["rare", "of any size", "sampled", "users of one row"])
def test_its_p_values_are_uniform_at_the_true_propensities(kind):
    found = []
    for seed, table in enumerate(null_tables(kind, 300)):
        pairs = read(table)
        first = np.random.default_rng([seed, 2]).random(len(pairs)) < 0.5
        c = (combinations(pairs, first, seed) * pairs.scale)[~first]
        value = float((c * (pairs.observed - pairs.q)[~first]).sum())
        found.append(weighted_sum_tail(c, pairs.q[~first], value))
    assert kstest(found, "uniform").pvalue > 1e-3
    assert (
        binom.ppf(1e-4, 300, 0.05) <= np.sum(np.array(found) < 0.05) <= binom.isf(1e-4, 300, 0.05)
    )


def test_the_seed_alone_decides():
    pairs = read(communities(3, (60, 90)))
    first = np.arange(len(pairs)) % 2 == 0
    w = combinations(pairs, first, 0)
    np.testing.assert_array_equal(combinations(pairs, first, 0), w)
    assert np.abs(w).max() <= 1
    # other starts end in the same subspace, but for triplets as small as the last
    assert np.corrcoef(combinations(pairs, first, 1), w)[0, 1] > 0.9


def test_the_other_half_is_not_read():
    pairs = read(communities(4, (50, 40)))
    first = np.arange(len(pairs)) % 2 == 0
    w = combinations(pairs, first, 0)
    pairs.observed[~first] = 1 - pairs.observed[~first]
    np.testing.assert_array_equal(combinations(pairs, first, 0), w)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (5, 7), (3, 200)])
def test_few_users_or_items_will_do(shape):
    pairs = read(communities(5, shape, (0.5, 0.5)))
    w = combinations(pairs, np.arange(len(pairs)) % 2 == 0, 0)
    assert w.shape == (len(pairs),)
    assert np.isfinite(w).all()
