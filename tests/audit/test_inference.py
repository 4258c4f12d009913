"""The tests of counts and weighted sums against exact distributions, and Holm's procedure."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from upo.audit.inference import count_p_values, holm, weighted_sum_tail


def exact_counts(q):
    """P(S = k) for k = 0..n by convolution."""
    mass = np.ones(1)
    for x in q:
        mass = np.convolve(mass, [1 - x, x])
    return mass


@pytest.mark.parametrize(("n", "mean"), [(30, 0.05), (100, 0.1), (300, 0.3)])
def test_counts_against_the_exact_poisson_binomial(n, mean):
    rng = np.random.default_rng(n)
    q = np.clip(rng.beta(1, 1 / mean, size=n), 1e-4, 1 - 1e-4)
    mass, expected = exact_counts(q), q.sum()
    compared = 0
    for k in range(n + 1):
        tail = mass[k:].sum() if k > expected else mass[: k + 1].sum()
        z = (k - expected) / np.sqrt((q * (1 - q)).sum())
        if abs(z) > 2 and tail > 1e-13:  # below, the convolution itself loses its digits
            o = np.r_[np.ones(k), np.zeros(n - k)]
            found = count_p_values(o, q, np.zeros(n, np.int64), 1)[0]
            # a saddle point errs by O(1/n) of the tail, most at the empty count
            assert found == pytest.approx(2 * tail, rel=0.1)
            compared += 1
    assert compared > 5


def test_segments_are_tested_apart():
    rng = np.random.default_rng(3)
    q, codes = rng.uniform(0.05, 0.3, size=600), np.repeat([0, 2, 3], 200)
    o = (rng.random(600) < np.where(codes == 2, 2.5 * q, q)).astype(float)
    together = count_p_values(o, q, codes, 5)
    for k in (0, 2, 3):
        rows = codes == k
        alone = count_p_values(o[rows], q[rows], np.zeros(200, np.int64), 1)
        assert together[k] == pytest.approx(alone[0], rel=1e-6)
    assert together[2] < 1e-4
    assert together[[1, 4]].tolist() == [1.0, 1.0]  # empty


def test_a_weighted_sum_against_all_outcomes():
    rng = np.random.default_rng(5)
    q, c = rng.uniform(0.02, 0.3, size=18), rng.uniform(1, 5, size=18)
    outcomes = np.array(list(product([0.0, 1.0], repeat=18)))
    mass = np.where(outcomes == 1, q, 1 - q).prod(1)
    sums = (outcomes - q) @ c
    deviation = np.sqrt((c * c * q * (1 - q)).sum())
    for z in (2.1, 2.5, 3.0, 3.5):
        exact = mass[sums >= z * deviation].sum()
        # 2 % were seen over five such sums; the normal tail is up to six times too small
        assert weighted_sum_tail(c, q, z * deviation) == pytest.approx(exact, rel=0.05)
        assert norm.sf(z) < 0.75 * exact
    c[:9] *= -1
    most = np.maximum(c * (1 - q), -c * q).sum()
    everything = np.where(c > 0, q, 1 - q).prod()
    assert weighted_sum_tail(c, q, most) == pytest.approx(everything, rel=1e-6)
    assert weighted_sum_tail(0 * c, q, 1.0) == 0.5


def test_skewed_sums_keep_their_level():
    rng = np.random.default_rng(7)
    q = np.exp(rng.uniform(np.log(0.003), np.log(0.5), size=2000))
    c = 1 / (q * (1 - q))
    draws = (rng.random((4000, 2000)) < q) - q
    sums = draws @ c
    tails = np.array([weighted_sum_tail(c, q, x) for x in sums])
    for level in (0.001, 0.01):
        # a binomial count of 4000, within four of its deviations
        slack = 4 * np.sqrt(level / 4000)
        assert (tails <= level).mean() <= level + slack
    assert (sums > 3.1 * sums.std()).mean() > 0.001  # which the normal tail would not allow


def test_holm_steps_down():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
