"""Bootstrap of seeds crossed with users, Holm, ranks: identities, then coverage."""

import math

import numpy as np
import pytest

from upo.report.paired import crossed_bootstrap, holm
from upo.report.ranks import cliques, mean_ranks, user_blocks

RNG = np.random.default_rng(0)
TABLE = RNG.normal(0.1, 1, (4, 60))


def test_a_constant_difference_has_no_width():
    found = crossed_bootstrap(np.full((3, 20), 0.25))
    assert (found.mean, found.low, found.high, found.error) == (0.25, 0.25, 0.25, 0.0)
    assert found.p == pytest.approx(2 / 2001)  # no draw is at 0 or below
    nothing = crossed_bootstrap(np.zeros((3, 20)))
    assert (nothing.low, nothing.high, nothing.p) == (0, 0, 1)


def test_it_is_symmetric_and_scales():
    found, other = crossed_bootstrap(TABLE), crossed_bootstrap(-2 * TABLE)
    assert other.mean == pytest.approx(-2 * found.mean)
    assert (other.low, other.high) == pytest.approx((-2 * found.high, -2 * found.low))
    assert other.p == found.p


def test_both_seeds_and_users_are_drawn():
    by_seed = np.repeat(RNG.normal(0, 1, (8, 1)), 50, axis=1)
    assert crossed_bootstrap(by_seed).error == pytest.approx(by_seed[:, 0].std() / 8**0.5, rel=0.1)
    by_user = np.repeat(RNG.normal(0, 1, (1, 50)), 8, axis=0)
    assert crossed_bootstrap(by_user).error == pytest.approx(by_user[0].std() / 50**0.5, rel=0.1)
    # one seed: users alone
    assert crossed_bootstrap(by_user[:1]).error == pytest.approx(
        crossed_bootstrap(by_user).error, rel=0.1
    )


def test_cells_that_are_missing_do_not_count():
    holes = TABLE.copy()
    holes[1, :30] = np.nan
    assert crossed_bootstrap(holes).mean == pytest.approx(np.nanmean(holes))
    with pytest.raises(ValueError, match="needs a table"):
        crossed_bootstrap(np.full((2, 3), np.nan))


def test_intervals_cover_what_they_should():
    hits = 0
    for number in range(200):
        rng = np.random.default_rng(number)
        table = rng.normal(0, 1, (6, 1)) + rng.normal(0, 2, (1, 60)) + rng.normal(0, 1, (6, 60))
        found = crossed_bootstrap(table, draws=300, seed=number)
        hits += found.low <= 0 <= found.high
    assert 0.84 <= hits / 200 <= 0.995  # six seeds: percentile intervals are somewhat short


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]
    adjusted = holm([0.02, math.nan, 0.6, 0.7])
    assert adjusted[0] == pytest.approx(0.06)
    assert math.isnan(adjusted[1])
    assert adjusted[2:] == [1.0, 1.0]
    assert holm([]) == []


def test_ranks_of_known_tables():
    found = mean_ranks([[3, 2, 1], [30, 20, 10], [1, 1, 0]])
    assert found.mean.tolist() == pytest.approx([3.5 / 3, 5.5 / 3, 3])
    assert found.mean.sum() == pytest.approx(6)
    assert mean_ranks([[1, 2], [1, 2]], lower=True).mean.tolist() == [1, 2]
    assert mean_ranks(np.ones((4, 3))).mean.tolist() == [2, 2, 2]
    assert mean_ranks(np.ones((4, 3))).p == 1
    # Demsar 2006, table 5: q for 4 classifiers is 2.569, so 14 data sets have CD 1.25
    blocks = np.random.default_rng(1).random((14, 4))
    assert mean_ranks(blocks).critical == pytest.approx(1.25, abs=0.005)
    with pytest.raises(ValueError, match="two blocks"):
        mean_ranks([[1, 2]])


def test_cliques_are_the_longest_runs():
    assert cliques([1, 2, 3], 5) == [(0, 2)]
    assert cliques([1, 2, 3], 0.5) == []
    assert cliques([1, 1.5, 2, 4], 1) == [(0, 2)]


def test_blocks_of_users_keep_the_mean():
    values = RNG.random((3, 90))
    found = user_blocks(values)
    assert found.shape == (30, 3)
    assert found.mean(axis=0) == pytest.approx(values.mean(axis=1))
    assert user_blocks(values[:, :7]).shape == (7, 3)
