"""Maps from logits to calibrated probabilities: their identities, and what moves them."""

import numpy as np
import pytest

from upo.functional.boosting import boosted
from upo.functional.recalibration import LEAST_ONES, histogram, isotonic


def rows(n=20_000, seed=0, slope=0.5):
    """Logits that are too steep, o of the true ones, every fourth unobserved row kept."""
    draw = np.random.default_rng(seed)
    z = draw.normal(-2, 1.5, n)
    o = (draw.random(n) < 1 / (1 + np.exp(-slope * z))).astype(float)
    kept = (o == 1) | (draw.random(n) < 0.25)
    w = np.where(o == 1, 1.0, (1 - o).sum() / (kept & (o == 0)).sum())
    return z[kept], o[kept], w[kept]


def levels(steps, z):
    return steps.step(z)


@pytest.mark.parametrize("fit", [isotonic, histogram])
def test_levels_sum_to_the_observed_rows_step_by_step(fit):
    z, o, w = rows()
    p = levels(fit(z, o, w), z)
    for level in np.unique(p):
        mine = p == level
        assert (w * p)[mine].sum() == pytest.approx((w * o)[mine].sum(), rel=1e-9)
    # so the observed rows stand for all, weighted by any function of the level
    assert (o / p).sum() == pytest.approx(w.sum(), rel=1e-9)
    assert (o * np.sqrt(p)).sum() == pytest.approx((w * p * np.sqrt(p)).sum(), rel=1e-9)


def test_isotonic_levels_rise_and_rest_on_enough_rows():
    z, o, w = rows()
    steps = isotonic(z, o, w)
    assert (np.diff(steps.levels) > 0).all()
    assert (np.diff(steps.ends) > 0).all()
    assert o[z <= steps.ends[0]].sum() >= LEAST_ONES
    assert (1 - o)[z > steps.ends[-2]].sum() >= 10
    truth = 1 / (1 + np.exp(-0.5 * z))
    assert (w * np.abs(levels(steps, z) - truth)).sum() / w.sum() < 0.02


@pytest.mark.parametrize("fit", [isotonic, histogram])
def test_only_the_order_of_logits_counts_and_a_weight_of_two_is_a_row_twice(fit):
    z, o, w = rows(4000)
    found = levels(fit(z, o, w), z)
    moved = np.exp(0.7 * z) - 3
    np.testing.assert_allclose(levels(fit(moved, o, w), moved), found, rtol=1e-12)
    order = np.random.default_rng(1).permutation(len(z))
    np.testing.assert_allclose(levels(fit(z[order], o[order], w[order]), z), found, rtol=1e-9)


def test_calibrating_what_is_calibrated_changes_nothing():
    z, o, w = rows()
    once = levels(isotonic(z, o, w), z)
    again = levels(isotonic(np.log(once / (1 - once)), o, w), np.log(once / (1 - once)))
    np.testing.assert_allclose(again, once, rtol=1e-9)


def test_logits_that_say_nothing_give_the_mean_and_few_rows_one_level():
    draw = np.random.default_rng(2)
    z, o, w = np.zeros(500), (draw.random(500) < 0.3).astype(float), np.ones(500)
    for fit in (isotonic, histogram):
        np.testing.assert_allclose(fit(z, o, w).levels, o.mean())
    z = draw.normal(size=500)
    o = np.zeros(500)
    o[:5] = 1
    assert isotonic(z, o, w).levels.tolist() == [5 / 500]


def test_no_level_is_0_or_1():
    z = np.linspace(-5, 5, 100_000)
    o = (z > 4).astype(float)
    o[:90_000:2000] = 1
    steps = isotonic(z, o, np.ones(len(z)))
    assert steps.levels.min() >= LEAST_ONES / len(z)
    assert steps.levels.max() < 1


def test_trees_find_what_a_feature_adds_and_leave_a_right_logit_alone():
    draw = np.random.default_rng(3)
    n = 40_000
    x = np.column_stack([draw.normal(-1, 1, n), draw.random(n) < 0.3, draw.normal(size=n)])
    truth = x[:, 0] + 1.2 * x[:, 1]
    o = (draw.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    forest = boosted(x, x[:, 0], o, np.ones(n))
    added = forest(x)
    assert (x[:, 0] + added - truth).std() < 0.2
    assert added[x[:, 1] == 1].mean() - added[x[:, 1] == 0].mean() == pytest.approx(1.2, abs=0.1)
    again = boosted(x, truth, o, np.ones(n))(x)
    assert np.abs(again).mean() < 0.1
    thin = boosted(x[:40], x[:40, 0], o[:40], np.ones(40))  # no leaf has enough rows
    assert np.abs(thin(x)).max() == 0
